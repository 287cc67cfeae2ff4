"""One registered slot: from what the store says of it to a slot of this gateway's pool, and back.

It becomes one when its pool has answered, so that no model waits for a slot that is not in reach, and stays
one as `standing` says.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.workerpool.backoff import Backoff
from gateway.workerpool.remote.place import Place
from gateway.workerpool.remote.standing import Standing, leaves_at_ns
from gateway.workerpool.remote.way import PoolUnreachable
from gateway.workerpool.remote.ways import WayRefused
from gateway.workerpool.remote.worker import RemoteWorker
from gateway.workerpool.slot import Slot

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.registration import Registration
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.remote.way import Way
    from gateway.workerpool.remote.ways import Ways
    from gateway.workerpool.worker import WorkerEvents

log = logging.getLogger(__name__)


class Prospect:
    """`problem` is why it is not in use, or what is wrong with its registration; '' while all is well."""

    def __init__(self, registration: Registration, pool: Pool, clock: Clock, ways: Ways) -> None:
        self.problem = ""
        self._claimed: Registration | None = registration
        self._pool = pool
        self._clock = clock
        self._ways = ways
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._worker: RemoteWorker | None = None
        self._name = slot_name(registration)

    def claim(self, registration: Registration | None) -> None:
        """The store says this now; None: nothing."""
        if registration != self._claimed:
            self._claimed = registration
            self._changed.set()

    async def wait_tried(self) -> None:
        """Wait until it is in use, or has a problem, or is registered no longer."""
        await self._tried.wait()

    async def follow(self) -> None:
        """Make a slot of it as long as it is registered or connected; return when it is neither. Cancelled,
        a slot stays.
        """
        backoff = Backoff(first_s=0.5, limit_s=10.0)
        while (registration := self._claimed) is not None:
            try:
                way = self._ways.to(registration)
                await self._ask(way, registration)
            except WayRefused as error:
                self._report(str(error))
                await self._wait(None)
            except PoolUnreachable as error:
                self._report(str(error))
                await self._wait(backoff.after_s(0.0) or 0.5)
            else:
                backoff.failures = 0
                await self._take_up(way, registration)
        self._tried.set()

    def _report(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("slot %s: %s", self._name, problem)
        self.problem = problem
        self._tried.set()

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait until something has changed, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _ask(self, way: Way, registration: Registration) -> None:
        """Raises PoolUnreachable: nobody answers, or it is another pool."""
        found = await way.describe()
        if found.node != registration.node or registration.slot not in found.slots:
            raise PoolUnreachable(
                f"{way} is node {found.node} with {', '.join(found.slots)}, not what is registered"
            )

    async def _take_up(self, way: Way, registration: Registration) -> None:
        """Let models be placed on it, until it is to be given up."""
        slot, place = slot_of(registration), Place(way)

        def make(slot: Slot, events: WorkerEvents) -> RemoteWorker:
            worker = RemoteWorker(slot, registration.slot, events, self._clock, place, self._changed.set)
            self._worker = worker
            return worker

        self._pool.add_slot(slot, make)
        self._report("")
        log.info("slot %s is in reach at %s", slot.name, way)
        while True:
            standing = self._standing(slot, place)
            now_ns = self._clock.now_ns()
            leaves_ns = leaves_at_ns(standing, now_ns)
            if leaves_ns is not None and leaves_ns <= now_ns:
                break
            await self._wait(None if leaves_ns is None else (leaves_ns - now_ns) / 1e9)
        self._worker = None
        self._pool.remove_slot(slot.name)
        log.warning("slot %s is out of reach", slot.name)

    def _standing(self, slot: Slot, place: Place) -> Standing:
        """Look at the registration again, and tell the worker where the next link is to go."""
        registration, worker = self._claimed, self._worker
        way, alike, problem = None, True, ""
        if registration is not None:
            alike = slot_of(registration) == slot
            try:
                way = self._ways.to(registration)
            except WayRefused as error:
                problem = str(error)
        connected_to = worker.connected_to if worker is not None else ""
        if connected_to and way is not None and (not alike or str(way) != connected_to):
            problem = f"{way} has registered it, as a slot of its own; the link to {connected_to} stays"
        self._report(problem)
        place.move(way if alike else None)
        unreachable = worker.unreachable_since_ns if worker is not None else None
        return Standing(way is not None, alike, bool(connected_to), unreachable)


def slot_name(registration: Registration) -> str:
    return f"{registration.node}/{registration.slot}"


def slot_of(registration: Registration) -> Slot:
    """Return the slot as this gateway has it."""
    return Slot(
        slot_name(registration),
        registration.parsed_device,
        registration.cpus,
        registration.capacity,
        memory_bytes=registration.memory_bytes,
        node=registration.node,
        runtimes=registration.runtimes,
        fetches=not registration.address.startswith("unix:"),
    )
