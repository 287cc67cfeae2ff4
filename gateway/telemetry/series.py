"""Figures that somebody else owns and that are read when metrics are scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Series(msgspec.Struct, frozen=True):
    """A metric's name, meaning and label names. The name of a counter ends in `_total`."""

    name: str
    help: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]


class Sample(NamedTuple):
    """One value; `labels` are the values for the series' label names, in their order."""

    labels: tuple[str, ...]
    value: float


class Reading(NamedTuple):
    """A series with its source. `read` must not block and should name few labels: each is a time series."""

    series: Series
    read: Callable[[], Iterable[Sample]]


QUEUE_DEPTH: Final = Series("crossgate_queue_depth", "Requests waiting for a device.", "gauge", ("model",))
WORKER_RESTARTS: Final = Series(
    "crossgate_worker_restarts_total", "Restarts of a worker.", "counter", ("worker",)
)
BATCHES_IN_FLIGHT: Final = Series(
    "crossgate_batches_in_flight", "Batches that a worker holds, running or staged.", "gauge", ("worker",)
)
ARENA_USED: Final = Series(
    "crossgate_arena_used_bytes",
    "Shared memory towards a worker that batches in flight hold.",
    "gauge",
    ("worker",),
)
WORKER_MEMORY: Final = Series(
    "crossgate_worker_memory_bytes", "Resident memory of a worker process.", "gauge", ("worker",)
)
CONNECTIONS: Final = Series("crossgate_connections", "gRPC connections that are open.", "gauge", ())
CONNECTIONS_TOTAL: Final = Series(
    "crossgate_connections_total",
    "gRPC connections by what became of them: accepted, or closed because of what the peer did (refused).",
    "counter",
    ("event",),
)
HELD_BYTES: Final = Series(
    "crossgate_held_bytes",
    "Memory of requests that are read or wait, and of answers that have not left.",
    "gauge",
    ("what",),
)
CONFIG_REVISION: Final = Series(
    "crossgate_config_revision", "Store revision by state, such as seen or applied.", "gauge", ("state",)
)
CONFIG_AWAY: Final = Series(
    "crossgate_config_away_seconds",
    "How long the source of the configuration could not be followed; 0 while it can.",
    "gauge",
    (),
)
CONFIG_PROBLEMS: Final = Series(
    "crossgate_config_problems", "Models whose document is not valid; the last good one serves.", "gauge", ()
)
MODELS_DECLARED: Final = Series("crossgate_models", "Models that are declared, loaded or not.", "gauge", ())
MODEL_LOAD_SECONDS: Final = Series(
    "crossgate_model_load_seconds", "How long the last load of a version took.", "gauge", ("model", "version")
)
