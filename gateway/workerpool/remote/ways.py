"""From a registration to the way to its pool, where this gateway may take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.workerpool.remote.address import PoolAddressInvalid, parse_pool_address
from gateway.workerpool.remote.broker import BrokerWay
from gateway.workerpool.remote.stream import StreamWay

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.registration import Registration
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.remote.terms import Terms
    from gateway.workerpool.remote.trust import Trust
    from gateway.workerpool.remote.way import Way


class WayRefused(Exception):
    """This gateway must not, or cannot, connect to what a registration names."""


class Ways:
    """`pool` is the gateway's, which is open by the time that a way is asked for."""

    def __init__(self, trust: Trust, terms: Terms, clock: Clock, pool: Pool) -> None:
        self._trust = trust
        self._terms = terms
        self._clock = clock
        self._pool = pool

    def to(self, registration: Registration) -> Way:
        """Raises WayRefused."""
        try:
            address = parse_pool_address(registration.address)
        except PoolAddressInvalid as error:
            raise WayRefused(f"its address cannot be used: {error}") from error
        if address.path:
            return BrokerWay(address.path, self._terms, self._pool.copying)
        refusal = self._trust.refusal(address.host, registration.identity)
        if refusal:
            raise WayRefused(f"{address} is not connected to: {refusal}")
        return StreamWay(address.target, registration.identity, self._trust, self._terms, self._clock)
