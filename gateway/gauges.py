"""What is read when metrics are scraped: figures that other parts own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry.series import (
    ARENA_SIZE,
    ARENA_USED,
    BATCHES_IN_FLIGHT,
    BUILD_INFO,
    CONFIG_AWAY,
    CONFIG_PROBLEMS,
    CONFIG_REJECTED,
    CONFIG_REVISION,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    DRAINING,
    HELD_BYTES,
    MODEL_LOAD_SECONDS,
    MODEL_READY,
    MODELS_DECLARED,
    QUEUE_DEPTH,
    QUEUE_LIMIT,
    TRACE_SPANS,
    WORKER_BUSY,
    WORKER_CAPACITY,
    WORKER_CREDITS,
    WORKER_MEMORY,
    WORKER_QUEUE_DEPTH,
    WORKER_RESTARTS,
    WORKER_UP,
    Sample,
)
from gateway.telemetry.triton import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.dataplane import Dataplane
    from gateway.frontend.seam import Frontend, Traffic
    from gateway.lifecycle.following import SourceState
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.servable import Servable
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.trace import SpanCounts
    from gateway.workerpool.pool import Pool


def read_gauges(
    accounts: Accounts,
    reconciler: Reconciler,
    dataplane: Dataplane,
    pool: Pool,
    frontend: Frontend,
    source: Callable[[], SourceState],
) -> None:
    """Have the accounts read these at each scrape."""
    read = accounts.read_at_scrape
    read(QUEUE_DEPTH, lambda: [Sample((n,), sum(q)) for n, q in _queues(reconciler, lambda s: s.queues.size)])
    read(
        QUEUE_LIMIT,
        lambda: [Sample((n,), sum(q)) for n, q in _queues(reconciler, lambda s: s.queues.max_size) if q],
    )
    read(MODEL_READY, lambda: _ready(reconciler))
    read(MODEL_LOAD_SECONDS, lambda: _load_seconds(reconciler))
    read(MODELS_DECLARED, lambda: [Sample((), len(reconciler.served))])
    read(
        CONFIG_REVISION,
        lambda: [
            Sample(("desired",), reconciler.desired.revision),
            Sample(("applied",), reconciler.applied_revision),
        ],
    )
    read(CONFIG_AWAY, lambda: [Sample((), source().away_s)])
    read(CONFIG_PROBLEMS, lambda: [Sample((), len(reconciler.desired.problems))])
    _read_workers(accounts, dataplane, pool)
    _read_traffic(accounts, frontend)


def read_process(
    accounts: Accounts,
    *,
    version: str,
    front_end: str,
    draining: Callable[[], bool],
    rejected: Callable[[], int],
    spans: Callable[[], SpanCounts],
) -> None:
    """Have the accounts read what is true of the whole gateway; `rejected` counts documents."""
    read = accounts.read_at_scrape
    read(BUILD_INFO, lambda: [Sample((version, front_end), 1)])
    read(DRAINING, lambda: [Sample((), int(draining()))])
    read(CONFIG_REJECTED, lambda: [Sample((), rejected())])
    read(TRACE_SPANS, lambda: _spans(spans()))


def read_triton(accounts: Accounts, reconciler: Reconciler) -> None:
    """Have the accounts read what waits under Triton's name too."""
    accounts.read_at_scrape(PENDING, lambda: _pending(reconciler))


def _spans(counts: SpanCounts) -> list[Sample]:
    return [
        Sample(("exported",), counts.exported),
        Sample(("dropped",), counts.dropped),
        Sample(("failed",), counts.failed),
    ]


def _read_workers(accounts: Accounts, dataplane: Dataplane, pool: Pool) -> None:
    read, slots, workers = accounts.read_at_scrape, dataplane.slots, pool.workers
    read(WORKER_RESTARTS, lambda: [Sample((name,), worker.restarts) for name, worker in workers.items()])
    read(
        WORKER_MEMORY,
        lambda: [Sample((name,), size) for name, w in workers.items() if (size := w.resident_bytes)],
    )
    read(
        WORKER_UP,
        lambda: [
            Sample((name, str(worker.slot.device)), int(name in slots and slots[name].usable))
            for name, worker in workers.items()
        ],
    )
    read(WORKER_CAPACITY, lambda: [Sample((name,), w.slot.capacity) for name, w in workers.items()])
    read(WORKER_CREDITS, lambda: [Sample((name,), slot.credits) for name, slot in slots.items()])
    read(
        WORKER_BUSY, lambda: [Sample((name, slot.device), slot.busy_ns / 1e9) for name, slot in slots.items()]
    )
    read(
        WORKER_QUEUE_DEPTH,
        lambda: [
            Sample((name,), sum(hosting.queues.size for hosting in slot.hostings.values()))
            for name, slot in slots.items()
        ],
    )
    read(BATCHES_IN_FLIGHT, lambda: [Sample((name,), len(slot.in_flight)) for name, slot in slots.items()])
    read(ARENA_SIZE, lambda: [Sample((name,), size) for name, size in dataplane.arena_bytes().items()])
    read(ARENA_USED, lambda: [Sample((name,), used) for name, used in dataplane.arena_used_bytes().items()])


def _queues(reconciler: Reconciler, of: Callable[[Servable], int]) -> Iterator[tuple[str, list[int]]]:
    """Each notable model, and a figure of each of its servables."""
    served = reconciler.served
    for name in sorted(reconciler.notable):
        yield name, [of(r.servable) for r in served[name].records.values() if r.servable is not None]


def _ready(reconciler: Reconciler) -> list[Sample]:
    found: dict[tuple[str, str], int] = {}  # {(model, version): ready}; it may be loaded from two files
    for name in sorted(reconciler.notable):
        for record in reconciler.served[name].records.values():
            ready = record.servable is not None and not record.draining
            found[name, record.version] = max(int(ready), found.get((name, record.version), 0))
    return [Sample(labels, ready) for labels, ready in found.items()]


def _pending(reconciler: Reconciler) -> list[Sample]:
    found: dict[tuple[str, str], int] = {}  # {(model, version): requests}, as above
    for name in sorted(reconciler.notable):
        for record in reconciler.served[name].records.values():
            if record.servable is not None:
                waiting = record.servable.queues.size
                found[name, record.version] = found.get((name, record.version), 0) + waiting
    return [Sample(labels, waiting) for labels, waiting in found.items()]


def _load_seconds(reconciler: Reconciler) -> list[Sample]:
    found: dict[tuple[str, str], float] = {}  # {(model, version): seconds}, as above: the latest
    for name in sorted(reconciler.notable):
        for record in reconciler.served[name].records.values():
            if record.load_ns:
                found[name, record.version] = record.load_ns / 1e9
    return [Sample(labels, seconds) for labels, seconds in found.items()]


def _read_traffic(accounts: Accounts, frontend: Frontend) -> None:
    traffic, read = frontend.traffic, accounts.read_at_scrape
    read(CONNECTIONS, lambda: [Sample((), t.open) for t in (traffic(),) if t is not None])
    read(CONNECTIONS_TOTAL, lambda: _connections(traffic()))
    read(HELD_BYTES, lambda: _held_bytes(traffic()))


def _connections(traffic: Traffic | None) -> list[Sample]:
    if traffic is None:
        return []
    return [Sample(("accepted",), traffic.accepted), Sample(("refused",), traffic.refused)]


def _held_bytes(traffic: Traffic | None) -> list[Sample]:
    if traffic is None:
        return []
    return [Sample(("requests",), traffic.request_bytes), Sample(("answers",), traffic.answer_bytes)]
