"""What a metric is called and means, and figures that somebody else owns and that are read at a scrape.

Every series of a gateway is declared here or, of the accounts, in `families`; `docs/metrics.md` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.telemetry.account import Exemplar
    from gateway.telemetry.histogram import Histogram


class Series(msgspec.Struct, frozen=True):
    """A metric's name, meaning and label names. The name of a counter ends in `_total`, unless it is another
    product's. The values of a histogram whose unit is seconds are kept in nanoseconds.
    """

    name: str
    help: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]

    @property
    def unit(self) -> str:
        """The unit that its name ends in: seconds, bytes, ratio or none."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in ("seconds", "bytes", "ratio") else ""


class Sample(NamedTuple):
    """One value; `labels` are the values for the series' label names, in their order."""

    labels: tuple[str, ...]
    value: float


class Distribution(NamedTuple):
    """One histogram, as a sample has one value. `exemplars` is {bucket: example}."""

    labels: tuple[str, ...]
    histogram: Histogram
    exemplars: Mapping[int, Exemplar]


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
MODEL_READY: Final = Series(
    "crossgate_model_ready",
    "Whether a version takes traffic: of models with something loaded, under way, wrong or required.",
    "gauge",
    ("model", "version"),
)
QUEUE_LIMIT: Final = Series(
    "crossgate_queue_limit", "Requests that may wait for a device.", "gauge", ("model",)
)
WORKER_UP: Final = Series(
    "crossgate_worker_up", "Whether a slot's worker takes batches.", "gauge", ("worker", "device")
)
WORKER_CREDITS: Final = Series(
    "crossgate_worker_credits", "Batches that a worker may still be sent.", "gauge", ("worker",)
)
WORKER_CAPACITY: Final = Series(
    "crossgate_worker_capacity",
    "How much a worker runs at a time: threads on CPU devices, runs on accelerators.",
    "gauge",
    ("worker",),
)
WORKER_BUSY: Final = Series(
    "crossgate_worker_busy_seconds_total",
    "Capacity that this gateway's runs have used; its rate over the capacity is the utilisation.",
    "counter",
    ("worker", "device"),
)
WORKER_QUEUE_DEPTH: Final = Series(
    "crossgate_worker_queue_depth", "Requests that wait for models of this slot.", "gauge", ("worker",)
)
ARENA_SIZE: Final = Series(
    "crossgate_arena_bytes", "Shared memory between the gateway and a worker.", "gauge", ("worker",)
)
CONFIG_REJECTED: Final = Series(
    "crossgate_config_rejected_total",
    "Documents that were refused because they are not valid.",
    "counter",
    (),
)
DRAINING: Final = Series("crossgate_draining", "Whether new requests are refused.", "gauge", ())
BUILD_INFO: Final = Series(
    "crossgate_build_info",
    "The version and the front end that serves; always 1.",
    "gauge",
    ("version", "front_end"),
)
CERTIFICATE_EXPIRY: Final = Series(
    "crossgate_certificate_expiry_timestamp_seconds",
    "When the first certificate of a chain ends, since the epoch.",
    "gauge",
    ("use",),
)
LOOP_LAG: Final = Series(
    "crossgate_loop_lag_seconds", "How late the event loop comes to what is due.", "histogram", ()
)
BURST_SIZE: Final = Series(
    "crossgate_burst_size", "Calls that came to the event loop at once.", "histogram", ()
)
CONFIG_APPLY: Final = Series(
    "crossgate_config_apply_seconds",
    "From seeing a change of the configuration to serving by it.",
    "histogram",
    (),
)
GPU_UTILIZATION: Final = Series(
    "crossgate_gpu_utilization_ratio",
    "Share of the last sample period in which a GPU ran.",
    "gauge",
    ("gpu",),
)
GPU_MEMORY_USED: Final = Series(
    "crossgate_gpu_memory_used_bytes", "Memory of a GPU that is taken, by whomever.", "gauge", ("gpu",)
)
GPU_MEMORY: Final = Series("crossgate_gpu_memory_bytes", "Memory of a GPU.", "gauge", ("gpu",))
TRACE_SPANS: Final = Series(
    "crossgate_trace_spans_total",
    "Spans by what became of them: exported, dropped or failed.",
    "counter",
    ("result",),
)
METRIC_PUSHES: Final = Series(
    "crossgate_metric_pushes_total",
    "Rounds of pushing metrics by what became of them: exported or failed.",
    "counter",
    ("result",),
)
SCRAPE_ERRORS: Final = Series(
    "crossgate_scrape_errors_total",
    "Scrapes that lack a series because its source failed.",
    "counter",
    ("series",),
)
