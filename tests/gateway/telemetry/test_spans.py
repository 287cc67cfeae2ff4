"""Spans as a real OTLP collector receives them."""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from gateway.clock import MonotonicClock
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.spans import SpanPipeline
from gateway.telemetry.trace import BatchTrace, FailureTrace, MemberTrace, SampledContext
from gateway.telemetry.tracing import Tracing

METHOD = "inference.GRPCInferenceService/ModelInfer"
SERVER = trace_pb2.Span.SPAN_KIND_SERVER
INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL


class Collector(service_grpc.TraceServiceServicer):
    """Keeps what it gets; while `answering` is clear it does not answer."""

    def __init__(self):
        self.requests = queue.Queue()
        self.answering = threading.Event()
        self.answering.set()

    def Export(self, request, context):
        self.requests.put(request)
        self.answering.wait(30)
        return service.ExportTraceServiceResponse()

    def spans(self):
        found = []
        while not self.requests.empty():
            for resource_spans in self.requests.get().resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    found += scope_spans.spans
        return found


@pytest.fixture
def collector(monkeypatch):
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_BSP_MAX_QUEUE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    collector = Collector()
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        service_grpc.add_TraceServiceServicer_to_server(collector, server)
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield collector
        collector.answering.set()
        server.stop(None).wait(10)


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def member(trace_id, span_id, **changes):
    times = {"arrived_ns": 100, "enqueued_ns": 110, "settled_ns": 400} | changes.pop("times", {})
    context = SampledContext(trace_id, span_id, changes.pop("parent", 0), changes.pop("state", ""))
    return MemberTrace(context, **times, **changes)


def batch_of(*members, **changes):
    fields = {
        "model": "digits",
        "version": "3",
        "revision": 17,
        "device": "cuda:0",
        "worker": "node-a/1",
        "batch_size": 5,
        "close_reason": "full",
        "dispatched_ns": 150,
        "run_start_ns": 200,
        "run_end_ns": 350,
        "settled_ns": 390,
    }
    return BatchTrace(**(fields | changes), members=members)


def export(collector, *records, offset_ns=1_000_000):
    """The spans of `records` by way of the collector"""
    pipeline = SpanPipeline.to_collector(collector.endpoint, offset_ns, "1.2.3")
    for record in records:
        if isinstance(record, BatchTrace):
            pipeline.record_batch(record)
        else:
            pipeline.record_failure(record)
    pipeline.close(10)
    return collector.spans()


def by_name(spans, name):
    return [span for span in spans if span.name == name]


def test_request_has_a_server_span_with_queue_and_run(collector):
    spans = export(collector, batch_of(member(0xA, 0x1, parent=0x99, state="vendor=1", request_id="r-7")))
    [request], [queued], [run] = (by_name(spans, name) for name in (METHOD, "queue", "run"))
    assert request.kind == SERVER
    assert request.trace_id == (0xA).to_bytes(16, "big")
    assert request.span_id == (0x1).to_bytes(8, "big")
    assert request.parent_span_id == (0x99).to_bytes(8, "big")
    assert request.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert request.trace_state == "vendor=1"
    assert (request.start_time_unix_nano, request.end_time_unix_nano) == (1_000_100, 1_000_400)
    assert attributes(request) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "crossgate.outcome": "ok",
        "crossgate.model": "digits",
        "crossgate.version": "3",
        "crossgate.revision": 17,
        "crossgate.batch.size": 5,
        "crossgate.batch.close_reason": "full",
        "crossgate.device": "cuda:0",
        "crossgate.worker": "node-a/1",
        "crossgate.request_id": "r-7",
    }
    assert request.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    for child, start_ns, end_ns in ((queued, 110, 150), (run, 200, 350)):
        assert child.kind == INTERNAL
        assert (child.trace_id, child.parent_span_id) == (request.trace_id, request.span_id)
        assert child.trace_state == "vendor=1"
        assert (child.start_time_unix_nano, child.end_time_unix_nano) == (
            1_000_000 + start_ns,
            1_000_000 + end_ns,
        )


def test_batch_and_requests_of_different_traces_link_to_each_other(collector):
    members = [member(0xA, 0x1), member(0xB, 0x2), member(0xB, 0x3)]
    spans = export(collector, batch_of(*members))
    [batch] = by_name(spans, "batch")
    requests = by_name(spans, METHOD)
    assert batch.trace_id not in {request.trace_id for request in requests}
    assert batch.parent_span_id == b""
    assert (batch.start_time_unix_nano, batch.end_time_unix_nano) == (1_000_150, 1_000_390)
    assert [(link.trace_id, link.span_id) for link in batch.links] == [
        (r.trace_id, r.span_id) for r in requests
    ]
    for request in requests:
        assert [(link.trace_id, link.span_id) for link in request.links] == [(batch.trace_id, batch.span_id)]
    assert attributes(batch)["crossgate.batch.size"] == 5
    assert len({span.span_id for span in spans}) == len(spans) == 1 + 3 * 3


@pytest.mark.parametrize("span_ids", [[0x1], [0x1, 0x2]])
def test_batch_of_one_trace_belongs_to_it(collector, span_ids):
    spans = export(collector, batch_of(*(member(0xA, span_id) for span_id in span_ids)))
    [batch] = by_name(spans, "batch")
    assert batch.trace_id == (0xA).to_bytes(16, "big")
    assert batch.parent_span_id == (0x1).to_bytes(8, "big")
    assert len(batch.links) == len(span_ids)


@pytest.mark.slow
def test_no_link_of_a_large_batch_is_dropped(collector):
    spans = export(collector, batch_of(*(member(i, i) for i in range(1, 1001)), batch_size=1000))
    [batch] = by_name(spans, "batch")
    assert len(batch.links) == 1000
    assert batch.dropped_links_count == 0
    assert len(spans) == 3001


def test_batch_without_sampled_members_makes_no_span(collector):
    assert export(collector, batch_of()) == []


def test_batch_that_never_ran_has_no_run_span(collector):
    spans = export(
        collector, batch_of(member(0xA, 1, outcome=Outcome.UNAVAILABLE), run_start_ns=0, run_end_ns=0)
    )
    assert sorted(span.name for span in spans) == sorted([METHOD, "batch", "queue"])


@pytest.mark.parametrize(
    ("outcome", "status_code", "is_error"),
    [
        (Outcome.INVALID, "INVALID_ARGUMENT", False),
        (Outcome.NOT_FOUND, "NOT_FOUND", False),
        (Outcome.UNAVAILABLE, "UNAVAILABLE", True),
        (Outcome.EXHAUSTED, "RESOURCE_EXHAUSTED", False),
        (Outcome.EXPIRED, "DEADLINE_EXCEEDED", True),
        (Outcome.CANCELLED, "CANCELLED", False),
        (Outcome.FAILED, "INTERNAL", True),
        (Outcome.BUG, "INTERNAL", True),
    ],
)
def test_span_of_a_failure_is_an_error_when_the_server_is_at_fault(collector, outcome, status_code, is_error):
    failure = FailureTrace(SampledContext(0xA, 1), "digits", outcome, arrived_ns=100, settled_ns=120)
    [span] = export(collector, failure)
    assert span.name == METHOD
    assert span.kind == SERVER
    found = attributes(span)
    assert found["rpc.response.status_code"] == status_code
    assert found["crossgate.outcome"] == outcome.value
    assert found.get("error.type") == (status_code if is_error else None)
    assert (span.status.code == trace_pb2.Status.STATUS_CODE_ERROR) is is_error
    assert "crossgate.version" not in found


def test_request_that_failed_in_the_queue_shows_its_wait(collector):
    failure = FailureTrace(
        SampledContext(0xA, 1), "digits", Outcome.EXPIRED, 100, 300, enqueued_ns=110, version="3", revision=17
    )
    spans = export(collector, failure)
    [request], [queued] = by_name(spans, METHOD), by_name(spans, "queue")
    assert queued.parent_span_id == request.span_id
    assert (queued.start_time_unix_nano, queued.end_time_unix_nano) == (1_000_110, 1_000_300)
    assert (attributes(request)["crossgate.version"], attributes(request)["crossgate.revision"]) == ("3", 17)


@pytest.mark.parametrize(
    ("environ", "service_name"),
    [
        ({}, "crossgate"),
        ({"OTEL_SERVICE_NAME": "edge"}, "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other,team=a"}, "other"),
    ],
)
def test_service_is_named_by_the_environment(collector, monkeypatch, environ, service_name):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    pipeline = SpanPipeline.to_collector(collector.endpoint, 0, "1.2.3")
    pipeline.record_batch(batch_of(member(0xA, 1)))
    pipeline.close(10)
    [resource_spans] = collector.requests.get_nowait().resource_spans
    resource = attributes(resource_spans.resource)
    assert (resource["service.name"], resource["service.version"]) == (service_name, "1.2.3")


def test_times_are_converted_with_one_offset(collector):
    tracing = Tracing.from_environment(
        MonotonicClock(),
        environ={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.endpoint},
        default_ratio=1.0,
    )
    context = tracing.sample({}, "digits")
    assert context is not None
    before_ns, now_ns = time.time_ns(), time.monotonic_ns()
    tracing.record_failure(FailureTrace(context, "digits", Outcome.BUG, now_ns, now_ns + 5))
    after_ns = time.time_ns()
    tracing.close(10)
    [span] = collector.spans()
    assert before_ns - 1e9 < span.start_time_unix_nano < after_ns + 1e9
    assert span.end_time_unix_nano - span.start_time_unix_nano == 5
    assert span.trace_id.hex() == context.trace_id_hex


@pytest.mark.slow
def test_hanging_collector_neither_blocks_recording_nor_the_end(collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    collector.answering.clear()
    pipeline = SpanPipeline.to_collector(collector.endpoint, 0)
    for i in range(1, 31):
        pipeline.record_batch(batch_of(member(i, i)))
    collector.requests.get(timeout=10)  # an export hangs now
    start = time.monotonic()
    for i in range(1, 301):
        pipeline.record_batch(batch_of(member(i, i)))
    assert time.monotonic() - start < 1.0
    start = time.monotonic()
    pipeline.close(0.2)
    assert time.monotonic() - start < 2.0


@pytest.mark.slow
def test_dead_collector_does_not_delay_the_end():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    pipeline = SpanPipeline.to_collector(f"http://127.0.0.1:{port}", 0)
    for i in range(1, 2000):
        pipeline.record_batch(batch_of(member(i, i)))
    start = time.monotonic()
    pipeline.close(0.2)
    assert time.monotonic() - start < 2.0
