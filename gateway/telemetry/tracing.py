"""Tracing as the data plane sees it: decide on arrival, tell the whole story once the batch is over.

Guarantees: without a collector in the environment nothing of OpenTelemetry is imported, and `sample` is one
call that returns None. With one, unsampled requests make no object at all. Nothing here waits for the
collector: spans go into a bounded queue that drops its oldest when full, and `close` is bounded in time.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

from gateway.telemetry.sampling import Sampling, sampling_from_environment
from gateway.telemetry.trace import SampledContext
from gateway.telemetry.traceparent import parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.clock import Clock
    from gateway.telemetry.spans import SpanPipeline
    from gateway.telemetry.trace import BatchTrace, FailureTrace

_SHUTDOWN_S = 2.0


class UnsupportedExporter(ValueError):
    """The environment asks for a trace exporter that is not there."""

    def __init__(self, variable: str, value: str) -> None:
        super().__init__(
            f"{variable}={value}: traces are exported by OTLP over gRPC only; set it to grpc or unset it"
        )
        self.variable = variable
        self.value = value


class Tracing:
    """Tracing switched off; `from_environment` gives this or an `ActiveTracing`."""

    enabled = False

    @staticmethod
    def from_environment(
        clock: Clock,
        *,
        environ: Mapping[str, str] | None = None,
        default_ratio: float = 0.01,
        service_version: str = "",
    ) -> Tracing:
        """Tracing as the standard OTEL_* variables say; off unless an OTLP endpoint is set.

        Read here: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT and
        _PROTOCOL, OTEL_TRACES_SAMPLER and _ARG, of which the sampler wins over `default_ratio`. The
        SDK reads the rest itself, from the process's environment: headers, certificates, timeouts,
        OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*. Raises UnsupportedExporter.
        """
        environ = os.environ if environ is None else environ
        endpoint = _first(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")[1]
        variable, exporter = _first(environ, "OTEL_TRACES_EXPORTER")
        disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        if not endpoint or disabled or exporter == "none":
            return Tracing()
        if exporter not in ("", "otlp"):
            raise UnsupportedExporter(variable, exporter)
        variable, protocol = _first(
            environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        if protocol not in ("", "grpc"):
            raise UnsupportedExporter(variable, protocol)

        from gateway.telemetry.spans import SpanPipeline  # the SDK takes 0.2 s to import

        epoch_offset_ns = time.time_ns() - clock.now_ns()
        pipeline = SpanPipeline.to_collector(endpoint, epoch_offset_ns, service_version)
        return ActiveTracing(pipeline, sampling_from_environment(environ, Sampling(default_ratio)))

    def sample(self, metadata: Mapping[str, str], model: str) -> SampledContext | None:
        """The trace of a request that has just arrived, None when it is not to be traced.

        `metadata` has lower-case keys. An invalid `traceparent` counts as none.
        """
        return None

    def set_sampling(self, by_model: Mapping[str, Sampling]) -> None:
        """Replace what applies to single models; others keep the default."""

    def set_default(self, sampling: Sampling | None) -> None:
        """Replace what applies to all other models; None is what the process was started with."""

    def record_batch(self, batch: BatchTrace) -> None:
        """Make the spans of a finished batch and of its sampled members, which it must have
        settled: a member that runs again belongs only to the batch that settles it."""

    def record_failure(self, failure: FailureTrace) -> None:
        """Make the spans of a sampled request that never was in a batch."""

    def close(self, timeout_s: float = _SHUTDOWN_S) -> None:
        """Export what is queued, then give up: blocks no longer than `timeout_s` and a little. Call
        it once, late."""


class ActiveTracing(Tracing):
    """Tracing into a pipeline of spans."""

    enabled = True

    def __init__(self, pipeline: SpanPipeline, default: Sampling) -> None:
        self._pipeline = pipeline
        self._started_with = self._default = default
        self._by_model: Mapping[str, Sampling] = {}  # {model: sampling}
        self._random = random.Random()

    def sample(self, metadata: Mapping[str, str], model: str) -> SampledContext | None:
        sampling = self._by_model.get(model, self._default)
        header = metadata.get("traceparent")
        if header is not None and sampling.follow_parent and len(header) == 55 and header.endswith("-00"):
            return (
                None  # the usual header where most is untraced; not worth 2 us to learn if it is well formed
            )
        parent = parse_traceparent(header) if header is not None else None
        if parent is None:
            if not sampling.decide(None, self._random.random()):
                return None
            return SampledContext(self._random.getrandbits(128) or 1, self._random.getrandbits(64) or 1)
        # Drawn from the trace id, as every service that samples by ratio draws: they agree on
        # which traces to keep.
        if not sampling.decide(parent.sampled, (parent.trace_id & (2**64 - 1)) / 2**64):
            return None
        return SampledContext(
            parent.trace_id,
            self._random.getrandbits(64) or 1,
            parent.span_id,
            metadata.get("tracestate", ""),
        )

    def set_sampling(self, by_model: Mapping[str, Sampling]) -> None:
        self._by_model = dict(by_model)

    def set_default(self, sampling: Sampling | None) -> None:
        self._default = sampling or self._started_with

    def record_batch(self, batch: BatchTrace) -> None:
        self._pipeline.record_batch(batch)

    def record_failure(self, failure: FailureTrace) -> None:
        self._pipeline.record_failure(failure)

    def close(self, timeout_s: float = _SHUTDOWN_S) -> None:
        self._pipeline.close(timeout_s)


def _first(environ: Mapping[str, str], *variables: str) -> tuple[str, str]:
    """The first of `variables` that is set and not empty, with its value; ("", "") without one."""
    for variable in variables:
        value = environ.get(variable, "").strip()
        if value:
            return variable, value
    return "", ""
