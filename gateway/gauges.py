"""What is read when metrics are scraped: figures that other parts own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry.series import (
    ARENA_USED,
    BATCHES_IN_FLIGHT,
    CONFIG_AWAY,
    CONFIG_PROBLEMS,
    CONFIG_REVISION,
    CONNECTIONS,
    CONNECTIONS_TOTAL,
    HELD_BYTES,
    MODEL_LOAD_SECONDS,
    MODELS_DECLARED,
    QUEUE_DEPTH,
    WORKER_MEMORY,
    WORKER_RESTARTS,
    Sample,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.dataplane import Dataplane
    from gateway.frontend.seam import Frontend, Traffic
    from gateway.lifecycle.following import SourceState
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.telemetry.accounts import Accounts
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
    read(QUEUE_DEPTH, lambda: _queue_depths(reconciler))
    read(MODEL_LOAD_SECONDS, lambda: _load_seconds(reconciler))
    read(MODELS_DECLARED, lambda: [Sample((), len(reconciler.served))])
    read(WORKER_RESTARTS, lambda: [Sample((n,), w.restarts) for n, w in pool.workers.items()])
    read(
        BATCHES_IN_FLIGHT,
        lambda: [Sample((name,), len(slot.in_flight)) for name, slot in dataplane.slots.items()],
    )
    read(ARENA_USED, lambda: [Sample((n,), u) for n, u in dataplane.arena_used_bytes().items()])
    read(
        WORKER_MEMORY,
        lambda: [Sample((n,), size) for n, w in pool.workers.items() if (size := w.resident_bytes)],
    )
    read(
        CONFIG_REVISION,
        lambda: [
            Sample(("desired",), reconciler.desired.revision),
            Sample(("applied",), reconciler.applied_revision),
        ],
    )
    read(CONFIG_AWAY, lambda: [Sample((), source().away_s)])
    read(CONFIG_PROBLEMS, lambda: [Sample((), len(reconciler.desired.problems))])
    _read_traffic(accounts, frontend)


def _queue_depths(reconciler: Reconciler) -> list[Sample]:
    served = reconciler.served
    return [
        Sample((name,), sum(r.servable.queues.size for r in served[name].records.values() if r.servable))
        for name in sorted(reconciler.notable)
    ]


def _load_seconds(reconciler: Reconciler) -> list[Sample]:
    return [
        Sample((name, record.version), record.load_ns / 1e9)
        for name in sorted(reconciler.notable)
        for record in reconciler.served[name].records.values()
        if record.load_ns
    ]


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
