"""The pool's workers, as those who serve gateways need them: connections, and how a worker ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.workerpool.worker import Worker, WorkerEvents

if TYPE_CHECKING:
    import socket

    from gateway.workerpool.pool import Pool
    from gateway.workerpool.seam import Link, SlotWorker
    from wire.frames import Hello

log = logging.getLogger(__name__)

# Less than a gateway waits, so that it hears why.
_UP_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 2.0


class SlotUnknown(Exception):
    """The pool has no such slot; the message names those that it has."""


class WorkerAway(Exception):
    """The slot's worker is not there now; the message says why."""


@dataclass(eq=False)
class _Seat:
    pid: int = 0  # of the worker that is up, 0 while none is
    ended_pid: int = 0
    reason: str = ""  # why that one ended
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self) -> None:
        """Wake whoever waits now; who comes later waits for the next change."""
        self.changed.set()
        self.changed = asyncio.Event()


class PoolWorkers:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._seats = {name: _Seat() for name in pool.slots}
        pool.observe(
            WorkerEvents(
                self._on_up,
                self._on_down,
                lambda worker, batch: None,  # nothing runs here on this process's account
                lambda worker, batch, done: None,
                lambda worker, credits: None,
            )
        )

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(self._pool.slots)

    def _on_up(self, worker: SlotWorker, link: Link, hello: Hello) -> None:
        log.info("worker %s is up, pid %d", worker.slot.name, hello.pid)
        seat = self._seats[worker.slot.name]
        seat.pid = hello.pid
        seat.change()

    def _on_down(self, worker: SlotWorker, reason: str) -> None:
        log.error("worker %s is lost: %s", worker.slot.name, reason)
        seat = self._seats[worker.slot.name]
        seat.ended_pid, seat.reason, seat.pid = seat.pid, reason, 0
        seat.change()

    def _seat(self, slot: str) -> _Seat:
        seat = self._seats.get(slot)
        if seat is None:
            raise SlotUnknown(f"this pool has no slot {slot!r:.100}; there are {', '.join(self._seats)}")
        return seat

    async def connect(self, slot: str) -> tuple[socket.socket, int]:
        """Return a connection to a slot's worker, which is started where it is not there, and its process id.

        Raises:
            SlotUnknown
            WorkerAway
        """
        seat = self._seat(slot)
        worker = self._pool.start(slot)
        assert isinstance(worker, Worker), "all slots are the pool's own"
        try:
            async with asyncio.timeout(_UP_TIMEOUT_S):
                while not seat.pid:
                    await seat.changed.wait()
            return worker.connect(), seat.pid
        except TimeoutError:
            raise WorkerAway(f"worker {slot}: {worker.down_reason}") from None
        except OSError as error:
            raise WorkerAway(f"worker {slot} cannot be connected to: {error.strerror}") from error

    async def how_it_ended(self, slot: str, pid: int, reason: str) -> str:
        """Return how the worker of this process id ended, `reason` where that does not become known soon."""
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                return await self.wait_ended(slot, pid)
        except TimeoutError:
            return reason

    async def wait_ended(self, slot: str, pid: int) -> str:
        """Wait until the worker of this process id has ended; return how."""
        seat = self._seat(slot)
        while seat.pid == pid:
            await seat.changed.wait()
        return seat.reason if seat.ended_pid == pid else f"worker {slot} has ended"

    def end(self, slot: str, pid: int, reason: str) -> None:
        """Kill a worker that hangs, unless it is another process by now. Raises SlotUnknown."""
        if self._seat(slot).pid == pid:
            log.error("worker %s is killed: %s", slot, reason)
            self._pool.workers[slot].kill(reason)
