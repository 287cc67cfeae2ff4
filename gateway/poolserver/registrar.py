"""Keeps a pool's slots registered in the store, under its lease.

A name belongs to the pool that has it. Another one's registration of the same slot is reported and left
alone; ours follows when that is gone. Only what an earlier process of this pool has left is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.config.registration import RegistrationInvalid, read_registration, write_registration
from gateway.config.store.leases import LeaseKeeper
from gateway.config.store.store import Span, StoreAway, StoreRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.clock import Clock
    from gateway.config.registration import Registration
    from gateway.config.store.store import Change, Store

log = logging.getLogger(__name__)

_REFUSED_PAUSE_S = 30.0


class Registrar:
    """`problem` says why the slots are not all in the store, '' while they are, as far as is known."""

    def __init__(
        self, store: Store, registrations: Sequence[Registration], lease_s: float, clock: Clock
    ) -> None:
        self._store = store
        self._ours = {each.key: each for each in registrations}  # {key: registration}
        self._lease_s = lease_s
        self._clock = clock
        self._there: dict[str, bytes] = {}  # {key: what the store has}
        self._written: set[str] = set()  # keys
        self._reported: dict[str, bytes] = {}  # {key: another pool's registration}

    async def check(self) -> None:
        """Ask the store once. One that is away is none of our business yet.

        Raises:
            StoreRefused: it will not let us.
        """
        try:
            await self._store.get(next(iter(self._ours)))
        except StoreAway as error:
            log.warning("the store %s is away, the slots are registered later: %s", self._store.where, error)

    async def run(self) -> None:
        """Keep the slots registered until cancelled; then they are deregistered."""
        nodes = {each.node for each in self._ours.values()}
        (node,) = nodes
        async with LeaseKeeper(self._store, self._lease_s, self._clock) as keeper:
            while True:
                try:
                    async with aclosing(self._store.watch(Span.folder(f"workers/{node}"))) as changes:
                        async for change in changes:
                            self._see(change)
                            await self._settle(keeper)
                except StoreRefused as error:
                    log.error("the slots cannot be registered: %s", error)
                    await asyncio.sleep(_REFUSED_PAUSE_S)

    def _see(self, change: Change) -> None:
        if change.resync:
            self._there.clear()
        for key in change.deletes:
            self._there.pop(key, None)
        for entry in change.puts:
            self._there[entry.key] = entry.value

    async def _settle(self, keeper: LeaseKeeper) -> None:
        """Write what is missing; report what another pool has."""
        for key, registration in self._ours.items():
            there, ours = self._there.get(key), write_registration(registration)
            if there == ours:
                self._reported.pop(key, None)
            elif there is None or (key not in self._written and _is_predecessor(registration, there)):
                self._reported.pop(key, None)
                if key in self._written:  # it went with another one's lease: ours knows nothing of that
                    await keeper.delete([key])
                self._written.add(key)
                await keeper.put({key: ours})
            elif self._reported.get(key) != there:
                self._reported[key] = there
                log.error("slot %s of node %s: %s", registration.slot, registration.node, _whose(key, there))


def _is_predecessor(ours: Registration, there: bytes) -> bool:
    """Whether a registration is of an earlier process of this pool: on one machine only one can listen at an
    address. One that is malformed is nobody's.
    """
    try:
        found = read_registration(ours.key, there)
    except RegistrationInvalid:
        return True
    return found.address == ours.address and found.machine == ours.machine


def _whose(key: str, there: bytes) -> str:
    try:
        found = read_registration(key, there)
    except RegistrationInvalid as error:
        return f"it is taken: {error}"
    return (
        f"the pool at {found.address} (pid {found.pid}) has registered it; this one is registered when that "
        "one has gone. Pools on several machines need names of their own: --node"
    )
