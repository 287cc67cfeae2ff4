"""The worker of a slot elsewhere, as one gateway has it: connected to, and again when the link is lost.

Its own pool starts and restarts it. A link that is lost because the way to the pool is cut looks to the data
plane like a lost worker: what was sent runs again elsewhere, or here when the link is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.workerpool.backoff import Backoff
from gateway.workerpool.link import LinkEvents
from gateway.workerpool.questions import WorkerLost
from gateway.workerpool.remote.way import PoolUnreachable, SlotAway
from wire.frames import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.workerpool.remote.place import Place
    from gateway.workerpool.remote.way import PoolLink, Way
    from gateway.workerpool.slot import Slot
    from gateway.workerpool.worker import WorkerEvents
    from wire.frames import Done, Hello

log = logging.getLogger(__name__)

_GREETING_TIMEOUT_S = 20.0
_RETRY_LIMIT_S = 5.0


class RemoteWorker:
    """`own_name` is the slot's name at its pool. `connected_to` says where the link goes, '' without one;
    `unreachable_since_ns` since when its pool has not answered, None while it does. `on_state` is called when
    one of these has changed.
    """

    def __init__(
        self,
        slot: Slot,
        own_name: str,
        events: WorkerEvents,
        clock: Clock,
        place: Place,
        on_state: Callable[[], None],
    ) -> None:
        self.slot = slot
        self.restarts = 0
        self.pid: int | None = None
        self.down_reason = "connecting"
        self.way_lost = False
        self.connected_to = ""
        self.unreachable_since_ns: int | None = None
        self._own_name = own_name
        self._events = events
        self._clock = clock
        self._place = place
        self._on_state = on_state
        self._backoff = Backoff(limit_s=_RETRY_LIMIT_S)
        self._link: PoolLink | None = None
        self._leaving = ""  # why its pool wants us to leave
        self._killed = ""
        self._was_up = False

    async def supervise(self) -> None:
        """Keep a link to it until cancelled."""
        while True:
            way = self._place.way
            if way is None:
                await self._place.wait_moved(None)
                continue
            began_ns = self._clock.now_ns()
            self._was_up = False
            try:
                reason = await self._live_once(way)
            except PoolUnreachable as error:
                reason = str(error)
                if self.unreachable_since_ns is None:
                    self.unreachable_since_ns = began_ns
                    self._on_state()
            except SlotAway as error:
                reason = str(error)
                self._reached()
            if reason != self.down_reason and not self._was_up:  # else its owner has been told
                log.warning("slot %s: %s", self.slot.name, reason)
            self.down_reason = reason
            good_s = (self._clock.now_ns() - began_ns) / 1e9
            await self._place.wait_moved(self._backoff.after_s(good_s))

    def _reached(self) -> None:
        if self.unreachable_since_ns is not None:
            self.unreachable_since_ns = None
            self._on_state()

    async def _live_once(self, way: Way) -> str:
        """Connect and serve the link until it is lost; return why it ended. Raises PoolUnreachable,
        SlotAway.
        """
        self._leaving = self._killed = ""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        link = self._link = await way.open(self._own_name, self._link_events(lost), self._on_goodbye)
        self._reached()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.move())
            try:
                reason = await self._talk(way, link, lost)
            finally:
                self._link = None
                link.close("the gateway closes the link")
        return reason

    async def _talk(self, way: Way, link: PoolLink, lost: asyncio.Future[str]) -> str:
        try:
            hello = await link.greet(_GREETING_TIMEOUT_S)
            self._check(hello)
        except (WorkerLost, ProtocolError, TimeoutError) as error:
            return str(error) or "no greeting from the worker"
        self._become(hello, way)
        self._events.on_up(self, link.link, hello)
        reason = await lost
        if not self._killed and not self._leaving:
            reason = await link.reason_of_end(reason)
        self.way_lost = link.way_lost and not self._killed
        self.connected_to = ""
        self._events.on_down(self, reason)
        self._on_state()
        if self._killed:
            try:
                await way.end(self._own_name, hello.pid, self._killed)
            except PoolUnreachable as error:
                log.warning("slot %s: its worker could not be ended: %s", self.slot.name, error)
        return reason

    @property
    def connected(self) -> bool:
        return bool(self.connected_to)

    def _become(self, hello: Hello, way: Way) -> None:
        if self.pid is not None and hello.pid != self.pid:
            self.restarts += 1
        self._was_up = True
        self.pid, self.down_reason, self.connected_to = hello.pid, "", str(way)
        self._on_state()

    def _check(self, hello: Hello) -> None:
        """Raises ProtocolError when this is not the slot's worker."""
        slot = self.slot
        expected = (self._own_name, str(slot.device), slot.capacity)
        if (hello.name, hello.device, hello.capacity) != expected:
            raise ProtocolError(
                f"slot {slot.name} met the worker of {hello.name}: {hello.device}, capacity {hello.capacity}"
            )

    def _link_events(self, lost: asyncio.Future[str]) -> LinkEvents:
        return LinkEvents(
            lambda batch: self._events.on_begun(self, batch),
            self._on_done,
            lambda credits: self._events.on_credits(self, credits),
            lambda reason: None if lost.done() else lost.set_result(reason),
        )

    def _on_done(self, batch: int, done: Done) -> None:
        self._events.on_done(self, batch, done)
        if self._leaving:
            self._leave_when_idle()

    def _on_goodbye(self, reason: str) -> None:
        """Its pool ends: what it has is awaited, nothing more is sent."""
        self._leaving = f"its pool ends: {reason}"
        if self._link is not None:
            self._link.drain()
            self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if self._link is not None and not self._link.busy:
            self._link.close(self._leaving)

    def kill(self, reason: str) -> None:
        """Give up a worker that hangs: the link is lost with this reason, and the pool is asked to end it."""
        if self._link is not None:
            self._killed = reason
            self._link.close(reason)

    @property
    def resident_bytes(self) -> int:
        """Its resident memory where it runs on this machine and the system lets us see it, else 0."""
        return 0
