"""What serves requests, put together: the pool's workers, the data plane, and the reconciler between them."""

from __future__ import annotations

import logging
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from gateway.admission.access import Access
from gateway.admission.admission import Admission
from gateway.dataplane import Dataplane
from gateway.lifecycle.catalog import Catalog
from gateway.lifecycle.reconciler import Reconciler
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.tracing import Tracing
from gateway.workerpool.pool import Pool
from gateway.workerpool.worker import WorkerEvents

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Sequence

    from gateway.clock import Clock
    from gateway.settings import GatewaySettings
    from gateway.workerpool.seam import Link, SlotWorker
    from gateway.workerpool.slot import Slot
    from wire.frames import Hello

log = logging.getLogger(__name__)


class Serving:
    """Owns no task and no listener: the pool is to be entered, the reconciler to be run. `on_change` hears of
    the models about which something may have changed. While `stopping` is true a lost worker is no news.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        settings: GatewaySettings,
        slots: Sequence[Slot],
        runtimes: Collection[str],
        on_change: Callable[[Collection[str]], None],
        *,
        node: str,
        stopping: Callable[[], bool],
    ) -> None:
        self._stopping = stopping
        self.accounts = Accounts()
        self.tracing = Tracing.from_environment(
            clock, default_ratio=settings.trace_ratio, service_version=package_version("crossgate")
        )
        self.admission = Admission(settings.max_held_bytes)
        self.access = Access()
        self.pool = Pool(
            slots,
            clock,
            segment_bytes=settings.segment_bytes,
            budget_bytes=settings.budget_bytes,
            folder=settings.pool_folder,
        )
        self.dataplane = Dataplane(
            loop,
            clock,
            self.admission,
            self.access,
            self.accounts,
            self.tracing,
            kill_worker=lambda slot, reason: self.pool.workers[slot].kill(reason),
            quarantine=lambda servable, reason: self.reconciler.quarantine(servable, reason),
            demand=lambda model, version: self.reconciler.demand(model, version),
        )
        self.reconciler = Reconciler(
            clock, self.pool, self.dataplane, self.accounts, runtimes, on_change, node=node
        )
        self.catalog = Catalog(self.reconciler, lambda: self.admission.draining)
        self.pool.observe(
            WorkerEvents(
                self._on_up,
                self._on_down,
                lambda worker, batch: self.dataplane.on_begun(worker.slot.name, batch),
                lambda worker, batch, done: self.dataplane.on_done(worker.slot.name, batch, done),
                lambda worker, credits: self.dataplane.on_credits(worker.slot.name, credits),
            ),
            on_slots=self._on_slots,
        )

    def _on_up(self, worker: SlotWorker, link: Link, hello: Hello) -> None:
        slot = worker.slot
        log.info("worker %s is up, pid %d", slot.name, hello.pid)
        self.dataplane.slot_up(slot.name, str(slot.device), link, hello.capacity, self.pool.segment_bytes)
        self.reconciler.worker_up(slot.name, link)

    def _on_down(self, worker: SlotWorker, reason: str) -> None:
        if not self._stopping():
            log.error("worker %s is lost: %s", worker.slot.name, reason)
        self.reconciler.worker_down(worker.slot.name, reason)
        self.dataplane.slot_down(worker.slot.name, reason, way_lost=worker.way_lost)

    def _on_slots(self) -> None:
        self.dataplane.forget_slots(self.pool.slots)
        self.reconciler.slots_changed()
