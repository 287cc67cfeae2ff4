"""The process: builds every part, owns the listeners and the tasks, and ends in order.

What ends it: SIGTERM or SIGINT (drain, exit 0; a second one ends it at once), a listener that cannot be
opened, and a defect in one of its own tasks. Workers, models and requests never do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from gateway.admission.admission import Admission, Draining
from gateway.clock import MonotonicClock
from gateway.dataplane import Dataplane
from gateway.discovery import default_slots, installed_runtimes
from gateway.frontend.grpcio import GrpcioFrontend
from gateway.frontend.servicers import build_servicers
from gateway.http.endpoints import Endpoints, Readiness
from gateway.http.server import HttpServer
from gateway.lifecycle.catalog import Catalog
from gateway.lifecycle.directory import DirectorySource
from gateway.lifecycle.reconciler import Reconciler
from gateway.telemetry import logs
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.prometheus import Exposition
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.series import (
    ARENA_USED,
    BATCHES_IN_FLIGHT,
    CONFIG_REVISION,
    MODEL_LOAD_SECONDS,
    QUEUE_DEPTH,
    WORKER_MEMORY,
    WORKER_RESTARTS,
    Sample,
)
from gateway.telemetry.tracing import Tracing
from gateway.workerpool.pool import Pool
from gateway.workerpool.slot import parse_slot
from gateway.workerpool.worker import WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.frontend.seam import Frontend
    from gateway.settings import GatewaySettings
    from gateway.workerpool.link import WorkerLink
    from gateway.workerpool.slot import Slot
    from gateway.workerpool.worker import Worker
    from wire.frames import Hello

log = logging.getLogger(__name__)

OnReady = Callable[[str], None]


class Gateway:
    """One gateway process. `run` serves until `stop` is called; `on_ready` gets one line when requests may
    come.
    """

    def __init__(self, settings: GatewaySettings, slots: Sequence[Slot], on_ready: OnReady) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self._now = asyncio.Event()  # stop at once
        self._ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        clock = MonotonicClock()
        runtimes = installed_runtimes()
        self._source = DirectorySource(settings.models)
        self._accounts = Accounts()
        self._tracing = Tracing.from_environment(
            clock, default_ratio=settings.trace_ratio, service_version=package_version("crossgate")
        )
        self._admission = Admission(settings.max_held_bytes)
        self._pool = Pool(
            slots, clock, segment_bytes=settings.segment_bytes, budget_bytes=settings.budget_bytes
        )
        self._dataplane = Dataplane(
            loop,
            clock,
            self._admission,
            self._accounts,
            self._tracing,
            kill_worker=lambda slot, reason: self._pool.workers[slot].kill(reason),
            quarantine=lambda servable, reason: self._reconciler.quarantine(servable, reason),
        )
        self._reconciler = Reconciler(
            clock, self._pool, self._dataplane, self._accounts, runtimes, self._on_change
        )
        self.catalog = Catalog(self._reconciler, lambda: self._admission.draining)
        self._pool.observe(
            WorkerEvents(
                self._on_up,
                self._on_down,
                lambda worker, batch, done: self._dataplane.on_done(worker.slot.name, batch, done),
                lambda worker, credits: self._dataplane.on_credits(worker.slot.name, credits),
            )
        )
        address = f"{settings.host}:{settings.grpc_port}"
        servicers = build_servicers(self.catalog, self._accounts)
        self._frontend: Frontend = GrpcioFrontend(loop, clock, servicers, address, settings.max_message_bytes)
        self._exposition = Exposition(self._accounts)
        self._http = HttpServer(
            Endpoints(self._readiness, self._exposition.steps, self._exposition.content_type)
        )
        self._read_gauges()

    def stop(self) -> None:
        """Drain and end; called again, end at once."""
        if self._stopping.is_set():
            self._now.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped.

        Raises:
            OSError: a listener cannot be opened.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._frontend.start(self._dataplane.on_calls, self._dataplane.on_cancels)
        http = await self._http.start(self._settings.host, self._settings.http_port)
        grpc = await self._frontend.listen()
        try:
            async with self._pool, asyncio.TaskGroup() as tasks:
                owned = [
                    tasks.create_task(self._follow(), name="source"),
                    tasks.create_task(self._reconciler.run(), name="reconciler"),
                    tasks.create_task(self._announce(grpc, f"{http.host}:{http.port}"), name="announce"),
                ]
                await self._stopping.wait()
                await self._drain()
                for task in owned:
                    task.cancel()
        finally:
            await self._frontend.close()
            await self._http.close()
            self._dataplane.close()
            await asyncio.to_thread(self._tracing.close)

    async def _follow(self) -> None:
        async for desired in self._source.changes():
            ratios = {name: model.document.trace.ratio for name, model in desired.models.items()}
            self._tracing.set_sampling({name: Sampling(r) for name, r in ratios.items() if r is not None})
            self._reconciler.observe(desired)

    async def _announce(self, grpc: str, http: str) -> None:
        await self._ready.wait()
        models = self.catalog.models()
        took_s = time.monotonic() - self._started
        self._on_ready(
            f"ready grpc={grpc} http={http} models={len(models)} frontend=grpcio in {took_s:.1f} s"
        )

    async def _drain(self) -> None:
        """Health says NOT_SERVING and new work is refused; what is in flight finishes."""
        log.info("draining: %d requests in flight", self._dataplane.unsettled)
        self._admission.draining = True
        self.catalog.changed()
        drained = asyncio.ensure_future(self._frontend.drain(self._settings.drain_s))
        at_once = asyncio.ensure_future(self._now.wait())
        await asyncio.wait((drained, at_once), return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not drained.done():
            drained.cancel()
        self._dataplane.fail_all(Draining())

    def _on_change(self) -> None:
        self.catalog.changed()
        if not self._ready.is_set() and self.catalog.ready()[0]:
            self._ready.set()

    def _on_up(self, worker: Worker, link: WorkerLink, hello: Hello) -> None:
        slot = worker.slot
        log.info("worker %s is up, pid %d", slot.name, hello.pid)
        self._dataplane.slot_up(slot.name, str(slot.device), link, hello.capacity, self._pool.segment_bytes)
        self._reconciler.worker_up(slot.name, link)

    def _on_down(self, worker: Worker, reason: str) -> None:
        if not self._stopping.is_set():
            log.error("worker %s is lost: %s", worker.slot.name, reason)
        self._reconciler.worker_down(worker.slot.name, reason)
        self._dataplane.slot_down(worker.slot.name, reason)

    def _revisions(self) -> list[Sample]:
        reconciler = self._reconciler
        return [
            Sample(("desired",), reconciler.desired.revision),
            Sample(("applied",), reconciler.applied_revision),
        ]

    def _readiness(self) -> Readiness:
        return Readiness(*self.catalog.ready())

    def _read_gauges(self) -> None:
        served = self._reconciler.served
        read = self._accounts.read_at_scrape
        read(
            QUEUE_DEPTH,
            lambda: [
                Sample((name,), sum(r.servable.queues.size for r in s.records.values() if r.servable))
                for name, s in served.items()
            ],
        )
        read(WORKER_RESTARTS, lambda: [Sample((n,), w.restarts) for n, w in self._pool.workers.items()])
        read(
            BATCHES_IN_FLIGHT,
            lambda: [Sample((name,), len(slot.in_flight)) for name, slot in self._dataplane.slots.items()],
        )
        read(ARENA_USED, lambda: [Sample((n,), u) for n, u in self._dataplane.arena_used_bytes().items()])
        read(WORKER_MEMORY, lambda: [Sample((n,), w.resident_bytes) for n, w in self._pool.workers.items()])
        read(CONFIG_REVISION, self._revisions)
        read(
            MODEL_LOAD_SECONDS,
            lambda: [
                Sample((name, record.version), record.load_ns / 1e9)
                for name, s in served.items()
                for record in s.records.values()
                if record.load_ns
            ],
        )


def serve(settings: GatewaySettings, on_ready: OnReady) -> None:
    """Run a gateway in this process until a signal ends it.

    Raises:
        OSError: a listener cannot be opened.
        SlotInvalid, DirectoryUnreadable: a setting is wrong.
    """
    import uvloop

    machine = os.sched_getaffinity(0)
    slots = [parse_slot(text, machine) for text in settings.slots or default_slots(installed_runtimes())]
    if settings.cpus:
        os.sched_setaffinity(0, settings.cpus)  # workers set their own, from all that the machine gave
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logs.configure(settings.log_level)
    sys.setswitchinterval(0.0005)  # the exporter's thread must not hold up the loop for 5 ms

    async def main() -> None:
        await Gateway(settings, slots, on_ready).run()

    uvloop.run(main())
