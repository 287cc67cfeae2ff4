"""Tracing as the data plane sees it: decide on arrival, or at the end for what was slow or failed; tell the
whole story once the request is over.

Guarantees: without a collector in the environment nothing of OpenTelemetry is imported, and `sample` is one
call that returns None. With one, unsampled requests make no object at all. Nothing here waits for the
collector: records go into a bounded queue that drops its oldest when full, and `close` is bounded in time.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Final

from gateway.telemetry.collector import Collector, follows_callers
from gateway.telemetry.recent import Recent
from gateway.telemetry.sampling import SampledBy, Sampler, Sampling, sampling_from_environment
from gateway.telemetry.token_bucket import TokenBucket
from gateway.telemetry.trace import MAX_TRACE_STATE_CHARS, SampledContext, SpanCounts
from gateway.telemetry.traceparent import parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.clock import Clock
    from gateway.telemetry.span_pipeline import SpanPipeline
    from gateway.telemetry.spans import Record
    from gateway.telemetry.traceparent import TraceParent

_SHUTDOWN_S: Final = 2.0

# Requests that are traced after the fact: at overload all of them are slow, or fail, and spans of all would
# make it worse.
_LATE_PER_S: Final = 100.0
_LATE_BURST: Final = 500.0


class Tracing:
    """Tracing switched off; `from_environment` gives this or an `ActiveTracing`.

    What counts as slow holds in any case, and `recent` is kept.
    """

    enabled = False

    def __init__(self, default: Sampler | None = None) -> None:
        self.recent = Recent()
        self._started_with = self._default = default or Sampler()
        self._said: Mapping[str, Sampling] = {}  # {model: what its document says}
        self._by_model: dict[str, Sampler] = {}  # {model: what follows of that}, once it was asked for

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
        _PROTOCOL (grpc, http/protobuf), OTEL_PROPAGATORS (tracecontext, baggage, none), OTEL_BSP_*,
        OTEL_TRACES_SAMPLER and _ARG, of which the sampler wins over `default_ratio`. The SDK reads the
        rest itself, from the process's environment: headers, certificates, compression, timeouts,
        OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES. Raises TraceSettingsInvalid.
        """
        environ = os.environ if environ is None else environ
        collector = Collector.from_environment(environ)
        follows = follows_callers(environ)
        default = sampling_from_environment(environ).over(Sampler(default_ratio))
        if collector is None:
            return Tracing(default)

        from gateway.telemetry.span_pipeline import SpanPipeline  # the SDK takes 0.2 s to import
        from gateway.telemetry.span_queue import QueueLimits

        epoch_offset_ns = time.time_ns() - clock.now_ns()
        limits = QueueLimits.from_environment(environ)
        pipeline = SpanPipeline.to_collector(collector, epoch_offset_ns, service_version, limits)
        return ActiveTracing(pipeline, default, follows_callers=follows)

    def sample(self, metadata: Mapping[str, str], model: str) -> SampledContext | None:
        """The trace of a request that has just arrived, None when it is not to be traced.

        `metadata` has lower-case keys. An invalid `traceparent` counts as none.
        """
        return None

    def sample_late(
        self, metadata: Mapping[str, str], model: str, why: SampledBy, now_ns: int
    ) -> SampledContext | None:
        """The trace of a request that has ended without one, and was slow or failed. None where its caller
        has decided against it, or too many were traced like this of late."""
        return None

    def sampler(self, model: str) -> Sampler:
        """What decides about a model's requests now."""
        said = self._said.get(model) if self._said else None
        if said is None:
            return self._default
        sampler = self._by_model.get(model)
        if sampler is None:
            sampler = self._by_model[model] = said.over(self._default)
        return sampler

    def set_sampling(self, by_model: Mapping[str, Sampling]) -> None:
        """Replace what applies to single models; others keep the default, and so does what is not said."""
        self._said = dict(by_model)
        self._by_model.clear()

    def set_default(self, sampling: Sampling) -> None:
        """Replace what applies to all models that say nothing; what it leaves out is as the process was
        started."""
        self._default = sampling.over(self._started_with)
        self._by_model.clear()

    def record(self, record: Record) -> None:
        """Make the spans of a record: a batch that has settled its sampled members (one that runs again
        belongs only to the batch that settles it), a sampled request that got no outputs, or a change of
        the configuration."""

    @property
    def span_counts(self) -> SpanCounts:
        """What has become of the spans so far."""
        return SpanCounts()

    def close(self, timeout_s: float = _SHUTDOWN_S) -> None:
        """Export what is queued, then give up: blocks no longer than `timeout_s` and a little. Call
        it once, late."""


class ActiveTracing(Tracing):
    """Tracing into a pipeline of spans."""

    enabled = True

    def __init__(self, pipeline: SpanPipeline, default: Sampler, *, follows_callers: bool = True) -> None:
        super().__init__(default)
        self._pipeline = pipeline
        self._follows_callers = follows_callers
        self._late = TokenBucket(_LATE_PER_S, _LATE_BURST)
        self._random = random.Random()

    def sample(self, metadata: Mapping[str, str], model: str) -> SampledContext | None:
        sampler = self.sampler(model)
        header = metadata.get("traceparent") if self._follows_callers else None
        if header is not None and sampler.follow_parent and len(header) == 55 and header.endswith("-00"):
            return (
                None  # the usual header where most is untraced; not worth 2 us to learn if it is well formed
            )
        parent = parse_traceparent(header) if header is not None else None
        if parent is None:
            if not sampler.decide(None, self._random.random()):
                return None
            return SampledContext(self._random.getrandbits(128) or 1, self._random.getrandbits(64) or 1)
        # Drawn from the trace id, as every service that samples by ratio draws: they agree on
        # which traces to keep.
        if not sampler.decide(parent.sampled, (parent.trace_id & (2**64 - 1)) / 2**64):
            return None
        return self._below(parent, metadata, SampledBy.CALLER if sampler.follow_parent else SampledBy.RATIO)

    def sample_late(
        self, metadata: Mapping[str, str], model: str, why: SampledBy, now_ns: int
    ) -> SampledContext | None:
        if self._late.is_empty(now_ns):
            return None
        header = metadata.get("traceparent") if self._follows_callers else None
        parent = parse_traceparent(header) if header is not None else None
        if not self.sampler(model).decide_late(None if parent is None else parent.sampled):
            return None
        self._late.take(now_ns)
        if parent is not None:
            return self._below(parent, metadata, why)
        return SampledContext(
            self._random.getrandbits(128) or 1, self._random.getrandbits(64) or 1, sampled_by=why
        )

    def _below(self, parent: TraceParent, metadata: Mapping[str, str], why: SampledBy) -> SampledContext:
        state = metadata.get("tracestate", "")
        return SampledContext(
            parent.trace_id,
            self._random.getrandbits(64) or 1,
            parent.span_id,
            state if len(state) <= MAX_TRACE_STATE_CHARS else "",
            why,
        )

    def record(self, record: Record) -> None:
        self._pipeline.record(record)

    @property
    def span_counts(self) -> SpanCounts:
        return self._pipeline.counts

    def close(self, timeout_s: float = _SHUTDOWN_S) -> None:
        self._pipeline.close(timeout_s)
