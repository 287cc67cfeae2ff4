"""What a gateway that follows a store does among the others of that store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.config.store.election import Election
from gateway.lifecycle.expiries import Expiries
from gateway.lifecycle.reporting import Reporter
from gateway.workerpool.remote.discovery import Discovery
from gateway.workerpool.remote.terms import Terms
from gateway.workerpool.remote.ways import Ways

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.status import Presence
    from gateway.config.store.store import Store
    from gateway.serving import Serving
    from gateway.settings import GatewaySettings
    from gateway.workerpool.remote.trust import Trust


log = logging.getLogger(__name__)

SLOTS_WITHIN_S = 3.0  # how long a start waits for slots of pools elsewhere


class Membership:
    """It reports its state, takes its turn in leading what one gateway does for all, and uses the slots of
    pools that register in the store. `discovery` is there once it is followed.
    """

    def __init__(
        self, store: Store, clock: Clock, settings: GatewaySettings, serving: Serving, trust: Trust
    ) -> None:
        self.where = store.where
        self.reporter = Reporter(store, clock, serving.reconciler, serving.catalog)
        self.discovery: Discovery | None = None
        self._store = store
        self._clock = clock
        self._settings = settings
        self._serving = serving
        self._trust = trust
        serving.reconciler.await_slots()

    async def discover(self, gateway: str) -> None:
        """Use the slots of pools elsewhere, under this gateway's name; until cancelled."""
        settings = self._settings
        terms = Terms(gateway, settings.segment_bytes, settings.budget_bytes)
        ways = Ways(self._trust, terms, self._clock, self._serving.pool)
        self.discovery = Discovery(self._store, self._serving.pool, self._clock, ways)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.discovery.run(), name="registrations")
            tasks.create_task(self._hear(self.discovery), name="first registrations")

    async def _hear(self, discovery: Discovery) -> None:
        """Let models wait for slots until it is known which there are."""
        try:
            async with asyncio.timeout(SLOTS_WITHIN_S):
                await discovery.wait_heard()
        except TimeoutError:
            log.warning("the slots in %s are not known after %.0f s", self.where, SLOTS_WITHIN_S)
        self._serving.reconciler.slots_known()

    async def take_part(self, presence: Presence, *, report_after_s: float = 0.0) -> None:
        """Report and campaign until cancelled. `presence` says who this is; it is written after so long."""
        name = presence.gateway
        election = Election(self._store, "expiries", name, Expiries(name).run)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report(presence, report_after_s), name="reporter")
            tasks.create_task(election.run(), name="election")

    async def _report(self, presence: Presence, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.reporter.run(presence)
