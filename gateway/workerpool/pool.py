"""A node's workers, one for each slot. A slot's worker starts when the first servable is placed on it.

Pools of one folder share their workers: the processes of one `serve`, a gateway and the one that follows it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gateway.workerpool.copying import Copying
from gateway.workerpool.rendezvous import private_folder
from gateway.workerpool.worker import Worker, WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from gateway.clock import Clock
    from gateway.workerpool.slot import Slot


class Pool:
    """Owns the supervisors' tasks. Leaving the context leaves the workers; those that no other gateway is
    connected to end. Without a `folder` it has one of its own, which is removed at the end unless it is kept.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        clock: Clock,
        *,
        gateway: str = "gateway",
        segment_bytes: int = 16 << 20,
        budget_bytes: int = 256 << 20,
        grace_s: float = 2.0,
        folder: Path | None = None,
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
        self.keep_folder = folder is not None
        self._folder = folder

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
                folder=self.folder,
                gateway=self._gateway,
                segment_bytes=self.segment_bytes,
                budget_bytes=self._budget_bytes,
                grace_s=self._grace_s,
                copying=self._copying,
            )
            self._running.append(self._tasks.create_task(worker.supervise(), name=f"worker {slot_name}"))
        return worker

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "the pool is open"
        return self._folder

    async def __aenter__(self) -> Self:
        """Raises OSError, FolderUnsafe."""
        self._folder = private_folder(self._folder or Path(tempfile.mkdtemp(prefix="crossgate-")))
        self._copying = Copying(asyncio.get_running_loop())
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
            self._copying.close()
            if not self.keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
