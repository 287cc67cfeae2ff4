"""A node's workers, one for each slot, and what is in reach of other nodes'. A slot's worker starts, or is
connected to, when the first servable is placed on it.

Pools of one folder share their workers: the processes of one `serve`, a gateway and the one that follows it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gateway.workerpool.copying import Copying
from gateway.workerpool.rendezvous import private_folder
from gateway.workerpool.worker import Worker, WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from gateway.clock import Clock
    from gateway.workerpool.seam import SlotWorker
    from gateway.workerpool.slot import Slot

Maker = Callable[["Slot", WorkerEvents], "SlotWorker"]


class Pool:
    """Owns the supervisors' tasks. Leaving the context leaves the workers; those that no other gateway is
    connected to end. Without a `folder` it has one of its own, which is removed at the end unless it is kept.
    A pool `for_others` runs no batches itself, and its workers end with it.
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
        for_others: bool = False,
    ) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.workers: dict[str, SlotWorker] = {}  # {slot name: worker}
        self.segment_bytes = segment_bytes
        self._clock = clock
        self._gateway = gateway
        self._budget_bytes = budget_bytes
        self._grace_s = grace_s
        self._for_others = for_others
        self._events: WorkerEvents | None = None
        self._on_slots: Callable[[], None] | None = None
        self._makers: dict[str, Maker] = {}  # {slot name: what makes its worker}, of added slots
        self._tasks = asyncio.TaskGroup()
        self.keep_folder = folder is not None
        self._folder = folder

    def observe(self, events: WorkerEvents, on_slots: Callable[[], None] | None = None) -> None:
        """Set who is told about workers, before any is started, and who of slots that come and go."""
        self._events = events
        self._on_slots = on_slots

    def add_slot(self, slot: Slot, maker: Maker) -> None:
        """Take up a slot whose worker is made by somebody else, and supervised here as the others are.

        Raises:
            ValueError: there is a slot of that name.
        """
        if slot.name in self.slots:
            raise ValueError(f"there is a slot {slot.name} already")
        self.slots[slot.name] = slot
        self._makers[slot.name] = maker
        self._tell()

    def remove_slot(self, slot_name: str) -> None:
        """Forget a slot that was added. Its worker must not be up."""
        del self._makers[slot_name]  # only those
        del self.slots[slot_name]
        self.workers.pop(slot_name, None)
        task = self._running.pop(slot_name, None)
        if task is not None:
            task.cancel()
        self._tell()

    def _tell(self) -> None:
        if self._on_slots is not None:
            self._on_slots()

    def start(self, slot_name: str) -> SlotWorker | None:
        """Start the worker of a slot, unless it is there. None: the slot was removed."""
        worker, slot = self.workers.get(slot_name), self.slots.get(slot_name)
        if worker is None and slot is not None:
            maker = self._makers.get(slot_name, self._own)
            assert self._events is not None, "observe before start"
            worker = self.workers[slot_name] = maker(slot, self._events)
            task = self._tasks.create_task(worker.supervise(), name=f"worker {slot_name}")
            self._running[slot_name] = task
        return worker

    def _own(self, slot: Slot, events: WorkerEvents) -> SlotWorker:
        return Worker(
            slot,
            events,
            self._clock,
            folder=self.folder,
            gateway=self._gateway,
            segment_bytes=self.segment_bytes,
            budget_bytes=self._budget_bytes,
            grace_s=self._grace_s,
            copying=self._copying,
            for_others=self._for_others,
        )

    @property
    def copying(self) -> Copying:
        """What copies inputs into arenas, on this loop."""
        return self._copying

    @property
    def folder(self) -> Path:
        assert self._folder is not None, "the pool is open"
        return self._folder

    async def __aenter__(self) -> Self:
        """Raises OSError, FolderUnsafe."""
        self._folder = private_folder(self._folder or Path(tempfile.mkdtemp(prefix="crossgate-")))
        self._copying = Copying(asyncio.get_running_loop())
        self._running: dict[str, asyncio.Task[None]] = {}  # {slot name: its supervision}
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            task.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            self._copying.close()
            if not self.keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
