"""Draining on request: new work is refused while the process lives, and taken again or the process ended."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.admin.view import Controls
    from gateway.clock import Clock

log = logging.getLogger(__name__)

_POLL_S = 0.02  # requests are counted, not announced


class Drained(NamedTuple):
    """How far it is. `exiting`: the process ends."""

    draining: bool
    in_flight: int
    exiting: bool


async def _pause() -> None:
    await asyncio.sleep(_POLL_S)


class Drain:
    """Every method may be called again: what is so already stays, and the last deadline counts. `run` owns
    the wait before an exit.
    """

    def __init__(
        self,
        controls: Controls,
        in_flight: Callable[[], int],
        clock: Clock,
        pause: Callable[[], Awaitable[None]] = _pause,
    ) -> None:
        self._controls = controls
        self._in_flight = in_flight
        self._clock = clock
        self._pause = pause
        self._draining = False
        self._exiting = asyncio.Event()
        self._ends_ns: int | None = None

    async def begin(self, deadline_s: float | None, *, leave: bool) -> Drained:
        """Refuse new requests from now on. With a deadline, return when what was in flight is answered or the
        time is over; without one at once. With `leave` return at once too, and end the process when nothing
        is in flight, at the latest at the deadline; without one that is left to the process's own limit.
        """
        if not self._draining:
            log.warning("draining on request: %d requests in flight", self._in_flight())
        self._controls.drain(True)
        self._draining = True
        ends_ns = None if deadline_s is None else self._clock.now_ns() + int(deadline_s * 1e9)
        if leave:
            self._ends_ns = ends_ns
            self._exiting.set()
        elif ends_ns is not None:
            while self._draining and self._in_flight() and self._clock.now_ns() < ends_ns:
                await self._pause()
        return self.now

    def end(self) -> Drained:
        """Take requests again, and give up an exit that waits.

        Raises:
            Stopping: the process ends.
        """
        self._controls.drain(False)
        if self._draining:
            log.warning("the drain is over: requests are taken again")
        self._draining = False
        self._exiting.clear()
        return self.now

    @property
    def now(self) -> Drained:
        return Drained(self._draining, self._in_flight(), self._exiting.is_set())

    async def run(self) -> None:
        """End the process once that was asked for. Returns then; else runs until cancelled."""
        while True:
            await self._exiting.wait()
            while self._exiting.is_set() and self._waits():
                await self._pause()
            if self._exiting.is_set():
                break
        self._controls.stop()
        if self._ends_ns is not None and self._in_flight():
            log.warning("the deadline of the drain has passed: %d requests fail", self._in_flight())
            self._controls.stop()  # again: at once

    def _waits(self) -> bool:
        return self._ends_ns is not None and self._in_flight() > 0 and self._clock.now_ns() < self._ends_ns
