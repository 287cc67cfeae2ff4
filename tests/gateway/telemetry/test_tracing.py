from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.clock import MonotonicClock
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.tracing import ActiveTracing, Tracing, UnsupportedExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ENDPOINT = "http://127.0.0.1:1"


class FakePipeline:
    def __init__(self):
        self.calls = []

    def record_batch(self, batch):
        self.calls.append(("batch", batch))

    def record_failure(self, failure):
        self.calls.append(("failure", failure))

    def close(self, timeout_s):
        self.calls.append(("close", timeout_s))


def active(default):
    return ActiveTracing(FakePipeline(), default)


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
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_exporter_that_is_not_there_is_named(variable, value):
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, variable: value}
    with pytest.raises(UnsupportedExporter, match=f"{variable}={value}"):
        Tracing.from_environment(MonotonicClock(), environ=environ)


@pytest.mark.parametrize(
    ("default", "flags", "is_sampled"),
    [
        (Sampling(0.0), None, False),
        (Sampling(1.0), None, True),
        (Sampling(1.0), "00", False),
        (Sampling(0.0), "01", True),
        (Sampling(1.0, follow_parent=False), "00", True),
        (Sampling(0.0, follow_parent=False), "01", False),
    ],
)
def test_callers_decision_wins_over_the_ratio(default, flags, is_sampled):
    metadata = {} if flags is None else {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
    assert (active(default).sample(metadata, "m") is not None) is is_sampled


def test_sampled_request_continues_the_callers_trace():
    metadata = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
    context = active(Sampling(0.0)).sample(metadata, "m")
    assert context is not None
    assert context.trace_id_hex == TRACE
    assert f"{context.parent_span_id:016x}" == SPAN
    assert context.span_id not in (0, context.parent_span_id)
    assert context.trace_state == "vendor=1"


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "nonsense", "tracestate": "vendor=1"}])
def test_sampled_request_without_a_valid_caller_begins_a_trace(metadata):
    tracing = active(Sampling(1.0))
    first, second = tracing.sample(metadata, "m"), tracing.sample(metadata, "m")
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id
    assert (first.parent_span_id, first.trace_state) == (0, "")
    assert len(first.span_id_hex) == 16


def test_model_may_have_its_own_ratio():
    tracing = active(Sampling(0.0))
    tracing.set_sampling({"traced": Sampling(1.0)})
    assert tracing.sample({}, "traced") is not None
    assert tracing.sample({}, "other") is None
    tracing.set_sampling({})
    assert tracing.sample({}, "traced") is None


def test_services_with_one_ratio_keep_the_same_traces():
    one, other = (active(Sampling(0.5, follow_parent=False)) for _ in range(2))
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
    tracing = ActiveTracing(pipeline, Sampling(1.0))
    batch, failure = object(), object()
    tracing.record_batch(batch)
    tracing.record_failure(failure)
    tracing.close(1.5)
    assert pipeline.calls == [("batch", batch), ("failure", failure), ("close", 1.5)]


@pytest.mark.slow
def test_nothing_of_opentelemetry_is_imported_while_tracing_is_off():
    code = (
        "import sys; from gateway.clock import MonotonicClock; from gateway.telemetry.tracing import Tracing;"
        "Tracing.from_environment(MonotonicClock(), environ={});"
        "sys.exit(any(name.startswith(('opentelemetry', 'grpc')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
