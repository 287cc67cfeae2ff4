from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.clock import MonotonicClock
from gateway.telemetry.collector import TraceSettingsInvalid
from gateway.telemetry.sampling import SampledBy, Sampler, Sampling
from gateway.telemetry.trace import MAX_TRACE_STATE_CHARS, SpanCounts
from gateway.telemetry.tracing import ActiveTracing, Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ENDPOINT = "http://127.0.0.1:1"


class FakePipeline:
    counts = SpanCounts(3, 2, 1)

    def __init__(self):
        self.calls = []

    def record(self, record):
        self.calls.append(("record", record))

    def close(self, timeout_s):
        self.calls.append(("close", timeout_s))


def active(default, **settings):
    return ActiveTracing(FakePipeline(), default, **settings)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ENDPOINT},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_tracing_is_off_unless_a_collector_is_named(environ):
    tracing = Tracing.from_environment(MonotonicClock(), environ=environ, default_ratio=1.0)
    assert not tracing.enabled
    assert tracing.sample({"traceparent": f"00-{TRACE}-{SPAN}-01"}, "m") is None
    tracing.set_sampling({"m": Sampling(1.0)})
    assert tracing.sample({}, "m") is None
    tracing.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_PROPAGATORS", "b3"),
    ],
)
def test_what_the_environment_asks_for_in_vain_is_named(variable, value):
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, variable: value}
    with pytest.raises(TraceSettingsInvalid, match=f"{variable}={value}"):
        Tracing.from_environment(MonotonicClock(), environ=environ)


@pytest.mark.slow
def test_compression_that_is_not_there_is_refused_at_the_start(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
    with pytest.raises(TraceSettingsInvalid, match="no exporter can be made"):
        Tracing.from_environment(MonotonicClock(), environ={"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT})


@pytest.mark.parametrize(
    ("default", "flags", "is_sampled"),
    [
        (Sampler(0.0), None, False),
        (Sampler(1.0), None, True),
        (Sampler(1.0), "00", False),
        (Sampler(0.0), "01", True),
        (Sampler(1.0, follow_parent=False), "00", True),
        (Sampler(0.0, follow_parent=False), "01", False),
    ],
)
def test_callers_decision_wins_over_the_ratio(default, flags, is_sampled):
    metadata = {} if flags is None else {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
    assert (active(default).sample(metadata, "m") is not None) is is_sampled


def test_sampled_request_continues_the_callers_trace():
    metadata = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    context = active(Sampler(0.0)).sample(metadata, "m")
    assert context is not None
    assert context.trace_id_hex == TRACE
    assert f"{context.parent_span_id:016x}" == SPAN
    assert context.span_id not in (0, context.parent_span_id)
    assert context.trace_state == "vendor=1"


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "nonsense", "tracestate": "vendor=1"}])
def test_sampled_request_without_a_valid_caller_begins_a_trace(metadata):
    tracing = active(Sampler(1.0))
    first, second = tracing.sample(metadata, "m"), tracing.sample(metadata, "m")
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id
    assert (first.parent_span_id, first.trace_state) == (0, "")
    assert len(first.span_id_hex) == 16


def test_model_may_have_its_own_ratio():
    tracing = active(Sampler(0.0))
    tracing.set_sampling({"traced": Sampling(1.0)})
    assert tracing.sample({}, "traced") is not None
    assert tracing.sample({}, "other") is None
    tracing.set_sampling({})
    assert tracing.sample({}, "traced") is None


def test_services_with_one_ratio_keep_the_same_traces():
    one, other = (active(Sampler(0.5, follow_parent=False)) for _ in range(2))
    kept = set()
    for i in range(1, 65):
        trace_id = f"{i * 0x123456789ABCDEF0F % 2**128:032x}"
        metadata = {"traceparent": f"00-{trace_id}-{SPAN}-01"}
        sampled = one.sample(metadata, "m") is not None
        assert sampled is (other.sample(metadata, "m") is not None)
        kept.add(sampled)
    assert kept == {True, False}


def test_records_and_close_reach_the_pipeline():
    pipeline = FakePipeline()
    tracing = ActiveTracing(pipeline, Sampler(1.0))
    record = object()
    tracing.record(record)
    tracing.close(1.5)
    assert pipeline.calls == [("record", record), ("close", 1.5)]
    assert tracing.span_counts == SpanCounts(3, 2, 1)
    assert Tracing().span_counts == SpanCounts(0, 0, 0)


def test_model_inherits_what_its_document_does_not_say():
    tracing = Tracing(Sampler(0.25, slow_ns=5))
    tracing.set_sampling({"m": Sampling(0.5)})
    assert tracing.sampler("m") == Sampler(0.5, slow_ns=5)
    tracing.set_default(Sampling(slow_ns=7, errors="all"))
    assert tracing.sampler("m") == Sampler(0.5, slow_ns=7, errors="all")
    assert tracing.sampler("other") == Sampler(0.25, slow_ns=7, errors="all")
    tracing.set_default(Sampling())
    assert tracing.sampler("other") == Sampler(0.25, slow_ns=5)


@pytest.mark.parametrize(
    ("sampler", "flags", "why"),
    [
        (Sampler(1.0), None, SampledBy.RATIO),
        (Sampler(0.0), "01", SampledBy.CALLER),
        (Sampler(1.0, follow_parent=False), "01", SampledBy.RATIO),
    ],
)
def test_sampled_request_says_who_decided(sampler, flags, why):
    metadata = {} if flags is None else {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
    assert active(sampler).sample(metadata, "m").sampled_by is why


@pytest.mark.parametrize("why", [SampledBy.SLOW, SampledBy.ERROR])
def test_request_that_the_draw_left_out_is_traced_late(why):
    tracing = active(Sampler(0.0))
    assert tracing.sample({}, "m") is None
    context = tracing.sample_late({}, "m", why, 0)
    assert (context.sampled_by, context.parent_span_id) == (why, 0)
    assert context.trace_id != 0


def test_caller_who_wants_no_trace_gets_none_late_either():
    metadata = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    assert active(Sampler(0.0)).sample_late(metadata, "m", SampledBy.SLOW, 0) is None
    late = active(Sampler(0.0, follow_parent=False)).sample_late(metadata, "m", SampledBy.SLOW, 0)
    assert (late.trace_id_hex, f"{late.parent_span_id:016x}") == (TRACE, SPAN)


def test_late_traces_are_limited_where_everything_is_slow():
    tracing = active(Sampler(0.0))
    made = [tracing.sample_late({}, "m", SampledBy.SLOW, 10**9) for _ in range(5000)]
    assert sum(context is not None for context in made) == 500
    assert tracing.sample_late({}, "m", SampledBy.SLOW, 2 * 10**9) is not None


def test_callers_are_not_followed_where_the_propagator_is_switched_off():
    tracing = active(Sampler(1.0), follows_callers=False)
    context = tracing.sample({"traceparent": f"00-{TRACE}-{SPAN}-00"}, "m")
    assert context.trace_id_hex != TRACE
    assert context.parent_span_id == 0


def test_trace_state_that_is_too_long_is_left_out():
    metadata = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "v=" + "x" * MAX_TRACE_STATE_CHARS}
    assert active(Sampler(0.0)).sample(metadata, "m").trace_state == ""


@pytest.mark.slow
def test_nothing_of_opentelemetry_is_imported_while_tracing_is_off():
    code = (
        "import sys; from gateway.clock import MonotonicClock; from gateway.telemetry.tracing import Tracing;"
        "Tracing.from_environment(MonotonicClock(), environ={});"
        "sys.exit(any(name.startswith(('opentelemetry', 'grpc')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
