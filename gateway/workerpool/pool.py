"""A node's workers, one for each slot. A slot's worker starts when the first servable is placed on it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gateway.workerpool.worker import Worker, WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from gateway.clock import Clock
    from gateway.workerpool.slot import Slot


class Pool:
    """Owns the supervisors' tasks; leaving the context ends all workers."""

    def __init__(
        self,
        slots: Sequence[Slot],
        clock: Clock,
        *,
        gateway: str = "gateway",
        segment_bytes: int = 16 << 20,
        budget_bytes: int = 256 << 20,
        grace_s: float = 2.0,
    ) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.workers: dict[str, Worker] = {}  # {slot name: worker}
        self.segment_bytes = segment_bytes
        self._clock = clock
        self._gateway = gateway
        self._budget_bytes = budget_bytes
        self._grace_s = grace_s
        self._events: WorkerEvents | None = None
        self._tasks = asyncio.TaskGroup()
        self._folder = tempfile.TemporaryDirectory(prefix="crossgate-")

    def observe(self, events: WorkerEvents) -> None:
        """Set who is told about workers, before any is started."""
        self._events = events

    def start(self, slot_name: str) -> Worker:
        """Start the worker of a slot, unless it is there."""
        worker = self.workers.get(slot_name)
        if worker is None:
            assert self._events is not None, "observe before start"
            worker = self.workers[slot_name] = Worker(
                self.slots[slot_name],
                self._events,
                self._clock,
                folder=Path(self._folder.name),
                gateway=self._gateway,
                segment_bytes=self.segment_bytes,
                budget_bytes=self._budget_bytes,
                grace_s=self._grace_s,
            )
            self._running.append(self._tasks.create_task(worker.supervise(), name=f"worker {slot_name}"))
        return worker

    async def __aenter__(self) -> Self:
        self._running: list[asyncio.Task[None]] = []
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            self._folder.cleanup()
