"""Spans as a real OTLP collector receives them."""

from __future__ import annotations

import time

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from otlp_receiver import values as attributes_of

from gateway.clock import MonotonicClock
from gateway.telemetry.collector import Collector
from gateway.telemetry.configuration_trace import AppliedChange, Stage, StageTime
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.sampling import SampledBy
from gateway.telemetry.span_pipeline import SpanPipeline
from gateway.telemetry.spans import SpanMaker, resource_of, span_count
from gateway.telemetry.trace import (
    BatchTrace,
    Execution,
    FailureTrace,
    LostTry,
    MemberTrace,
    SampledContext,
)
from gateway.telemetry.tracing import Tracing

METHOD = "inference.GRPCInferenceService/ModelInfer"
SERVER = trace_pb2.Span.SPAN_KIND_SERVER
INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL


def attributes(span):
    return attributes_of(span.attributes)


def member(trace_id, span_id, **changes):
    times = {"arrived_ns": 100, "enqueued_ns": 110, "settled_ns": 400} | changes.pop("times", {})
    context = SampledContext(trace_id, span_id, changes.pop("parent", 0), changes.pop("state", ""))
    return MemberTrace(context, **times, **changes)


EXECUTION = Execution("cuda:0", "node-a/1", 5, 2, "full", 150, 160, 180, 200, 350)


def batch_of(*members, execution=EXECUTION, **changes):
    fields = {"model": "digits", "version": "3", "revision": 17, "settled_ns": 390}
    return BatchTrace(**(fields | changes), execution=execution, members=members)


def export(receiver, *records, offset_ns=1_000_000):
    """The spans of `records` by way of the receiver"""
    collector = Collector(receiver.protocol, receiver.endpoint)
    pipeline = SpanPipeline.to_collector(collector, offset_ns, "1.2.3")
    for record in records:
        pipeline.record(record)
    pipeline.close(10)
    return receiver.spans


def by_name(spans, name):
    return [span for span in spans if span.name == name]


def test_request_has_a_server_span_with_its_phases(any_receiver):
    traced = member(0xA, 0x1, parent=0x99, state="vendor=1", request_id="r-7")
    spans = export(any_receiver, batch_of(traced))
    [request] = by_name(spans, METHOD)
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
        "crossgate.sampled_by": "ratio",
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
    for name, start_ns, end_ns in (
        ("queue", 110, 150),
        ("arena", 150, 160),
        ("wait", 160, 180),
        ("run", 200, 350),
        ("reply", 350, 390),
    ):
        [child] = by_name(spans, name)
        assert child.kind == INTERNAL
        assert (child.trace_id, child.parent_span_id) == (request.trace_id, request.span_id)
        assert child.trace_state == "vendor=1"
        assert (child.start_time_unix_nano, child.end_time_unix_nano) == (
            1_000_000 + start_ns,
            1_000_000 + end_ns,
        )


def test_batch_and_requests_of_different_traces_link_to_each_other(receiver):
    members = [member(0xA, 0x1), member(0xB, 0x2), member(0xB, 0x3)]
    spans = export(receiver, batch_of(*members))
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
    assert len({span.span_id for span in spans}) == len(spans) == 1 + 3 * 6


@pytest.mark.parametrize("span_ids", [[0x1], [0x1, 0x2]])
def test_batch_of_one_trace_belongs_to_it(receiver, span_ids):
    spans = export(receiver, batch_of(*(member(0xA, span_id) for span_id in span_ids)))
    [batch] = by_name(spans, "batch")
    assert batch.trace_id == (0xA).to_bytes(16, "big")
    assert batch.parent_span_id == (0x1).to_bytes(8, "big")
    assert len(batch.links) == len(span_ids)


@pytest.mark.slow
def test_no_link_of_a_large_batch_is_dropped(receiver):
    spans = export(receiver, batch_of(*(member(i, i) for i in range(1, 513))))
    [batch] = by_name(spans, "batch")
    requests = by_name(spans, METHOD)
    assert len(batch.links) == len(requests) == 512
    assert batch.dropped_links_count == 0
    assert all([link.span_id for link in request.links] == [batch.span_id] for request in requests)
    assert len(spans) == 1 + 512 * 6


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
def test_span_of_a_failure_is_an_error_when_the_server_is_at_fault(receiver, outcome, status_code, is_error):
    failure = FailureTrace(SampledContext(0xA, 1), "digits", outcome, arrived_ns=100, settled_ns=120)
    [span] = export(receiver, failure)
    assert span.name == METHOD
    assert span.kind == SERVER
    found = attributes(span)
    assert found["rpc.response.status_code"] == status_code
    assert found["crossgate.outcome"] == outcome.value
    assert found.get("error.type") == (status_code if is_error else None)
    assert (span.status.code == trace_pb2.Status.STATUS_CODE_ERROR) is is_error
    assert "crossgate.version" not in found


def test_request_that_failed_in_the_queue_shows_its_wait(receiver):
    failure = FailureTrace(
        SampledContext(0xA, 1), "digits", Outcome.EXPIRED, 100, 300, enqueued_ns=110, version="3", revision=17
    )
    spans = export(receiver, failure)
    [request], [queued] = by_name(spans, METHOD), by_name(spans, "queue")
    assert queued.parent_span_id == request.span_id
    assert (queued.start_time_unix_nano, queued.end_time_unix_nano) == (1_000_110, 1_000_300)
    assert (attributes(request)["crossgate.version"], attributes(request)["crossgate.revision"]) == ("3", 17)


def test_request_that_failed_in_a_batch_shows_where_it_was_and_what_happened(receiver):
    failed_run = Execution("cpu", "cpu-0", 1, 1, "idle", 150, 0, 180)
    failure = FailureTrace(
        SampledContext(0xA, 1, sampled_by=SampledBy.ERROR),
        "digits",
        Outcome.FAILED,
        100,
        300,
        110,
        "3",
        17,
        "r",
        "model digits: out of range",
        failed_run,
    )
    spans = export(receiver, failure)
    [request] = by_name(spans, METHOD)
    assert attributes(request)["crossgate.worker"] == "cpu-0"
    assert attributes(request)["crossgate.sampled_by"] == "error"
    assert request.status.message == "model digits: out of range"
    assert {s.name: (s.start_time_unix_nano, s.end_time_unix_nano) for s in spans if s is not request} == {
        "queue": (1_000_110, 1_000_150),
        "wait": (1_000_150, 1_000_180),
        "run": (1_000_180, 1_000_300),
    }


def test_each_lost_try_is_a_span_below_its_request(receiver):
    tries = (LostTry("cpu-0", 112, 120, "killed by signal 9"), LostTry("cpu-1", 125, 140, "the run failed"))
    spans = export(receiver, batch_of(member(0xA, 1, tries=tries), member(0xA, 2)))
    lost = by_name(spans, "lost try")
    request = next(s for s in by_name(spans, METHOD) if s.span_id[-1] == 1)
    assert {s.parent_span_id for s in lost} == {request.span_id}
    assert attributes(request)["crossgate.reruns"] == 2
    assert [attributes(s) for s in lost] == [
        {"crossgate.worker": "cpu-0", "crossgate.reason": "killed by signal 9"},
        {"crossgate.worker": "cpu-1", "crossgate.reason": "the run failed"},
    ]
    assert all(s.status.code == trace_pb2.Status.STATUS_CODE_ERROR for s in lost)


def test_configuration_change_is_one_trace_with_its_stages(receiver):
    stages = (
        StageTime(Stage.WATCH, 100, 110),
        StageTime(Stage.LOAD, 120, 200, "2", "cpu-0"),
        StageTime(Stage.WARM_UP, 200, 220, "2", "cpu-0", "out of memory"),
    )
    change = AppliedChange(
        0xBEEF, "digits", 18, 100, 300, "failed", stages, "out of memory", "ann", "try 2", "c-1"
    )
    spans = export(receiver, change)
    [root] = by_name(spans, "configuration")
    assert int.from_bytes(root.trace_id, "big") == 0xBEEF
    assert attributes(root) == {
        "crossgate.model": "digits",
        "crossgate.revision": 18,
        "crossgate.result": "failed",
        "crossgate.change.author": "ann",
        "crossgate.change.message": "try 2",
        "crossgate.change.id": "c-1",
    }
    assert root.status.message == "out of memory"
    below = [s for s in spans if s.name != "configuration"]
    assert [s.name for s in below] == ["watch", "load", "warm up"]
    assert {(s.trace_id, s.parent_span_id) for s in below} == {(root.trace_id, root.span_id)}
    assert attributes(below[1]) == {"crossgate.version": "2", "crossgate.worker": "cpu-0"}
    assert below[2].status.code == trace_pb2.Status.STATUS_CODE_ERROR


TRY = LostTry("cpu-0", 112, 120, "lost")
CONTEXT = SampledContext(0xA, 1)


@pytest.mark.parametrize(
    "record",
    [
        batch_of(member(1, 1)),
        batch_of(member(1, 1, tries=(TRY, TRY)), member(2, 2)),
        batch_of(member(1, 1), execution=Execution("cpu", "w", 1, 1, "idle", 150)),
        FailureTrace(CONTEXT, "m", Outcome.DENIED, 100, 110),
        FailureTrace(CONTEXT, "m", Outcome.EXPIRED, 100, 300, 110),
        FailureTrace(CONTEXT, "m", Outcome.FAILED, 100, 300, 110, execution=EXECUTION, tries=(TRY,)),
        AppliedChange(1, "m", 2, 100, 200, "applied", (StageTime(Stage.SWITCH, 100, 200),)),
    ],
)
def test_as_many_spans_are_made_as_were_announced(record):
    assert len(list(SpanMaker(resource_of(""), 0).spans_of(record))) == span_count(record)


@pytest.mark.parametrize(
    ("environ", "service_name"),
    [
        ({}, "crossgate"),
        ({"OTEL_SERVICE_NAME": "edge"}, "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other,team=a"}, "other"),
    ],
)
def test_service_is_named_by_the_environment(receiver, monkeypatch, environ, service_name):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    export(receiver, batch_of(member(0xA, 1)))
    [resource] = receiver.resources
    assert (resource["service.name"], resource["service.version"]) == (service_name, "1.2.3")


def test_times_are_converted_with_one_offset(receiver):
    tracing = Tracing.from_environment(
        MonotonicClock(),
        environ={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.endpoint},
        default_ratio=1.0,
    )
    context = tracing.sample({}, "digits")
    assert context is not None
    before_ns, now_ns = time.time_ns(), time.monotonic_ns()
    tracing.record(FailureTrace(context, "digits", Outcome.BUG, now_ns, now_ns + 5))
    after_ns = time.time_ns()
    tracing.close(10)
    [span] = receiver.spans
    assert before_ns - 1e9 < span.start_time_unix_nano < after_ns + 1e9
    assert span.end_time_unix_nano - span.start_time_unix_nano == 5
    assert span.trace_id.hex() == context.trace_id_hex
