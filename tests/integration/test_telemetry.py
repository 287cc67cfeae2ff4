"""Metrics, health, logs and spans of a real gateway, read by a real collector."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
from live_gateway import wait_until
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from prometheus_client.parser import text_string_to_metric_families

from crossgate import InvalidRequest, ModelFailed, NotFound

pytestmark = pytest.mark.slow

ROW = {"INPUT0": np.zeros((1, 4), np.float32)}
TRACE_ID = bytes(range(1, 17))
PARENT_ID = bytes(range(33, 41))
SAMPLED = {"traceparent": f"00-{TRACE_ID.hex()}-{PARENT_ID.hex()}-01"}
IDLE_S = 2.0


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver on a free port; `spans` is what has come."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans = []
        self.services = set()

    def Export(self, request, context):
        with self._lock:
            for resource in request.resource_spans:
                attributes = values(resource.resource.attributes)
                self.services.add(attributes["service.name"])
                for scope in resource.scope_spans:
                    self._spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def named(self, name):
        with self._lock:
            return [span for span in self._spans if span.name == name]


def values(attributes):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def gateway(module_models, start_module_gateway):
    module_models.write_loopback(
        "echo", options={"fail_on": 13}, batching={"max_batch_size": 64, "max_queue_delay_us": 100_000}
    )
    return start_module_gateway(module_models, slots=("cpu,capacity=2",))


def families(gateway):
    status, text = gateway.get("/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(text)}


async def test_metrics_count_requests_by_outcome_batches_and_latencies(gateway):
    async with gateway.async_client() as client:
        await asyncio.gather(*[client.infer("echo", ROW) for _ in range(32)])
        with pytest.raises(InvalidRequest):
            await client.infer("echo", {"OTHER": np.zeros((1, 1), np.float32)})
        with pytest.raises(ModelFailed):
            await client.infer("echo", {"INPUT0": np.full((1, 4), 13, np.float32)})
        with pytest.raises(NotFound):
            await client.infer("unknown", ROW)
    metric = gateway.metric
    assert metric("crossgate_requests_total", model="echo", version="1", outcome="ok") == 32
    assert metric("crossgate_rows_total", model="echo") == 32
    assert 1 <= metric("crossgate_batches_total", model="echo") <= 4
    assert metric("crossgate_batch_size_sum", model="echo", device="cpu") == 32
    assert metric("crossgate_request_seconds_count", model="echo") == 33  # the failed one was queued too
    assert metric("crossgate_queue_seconds_count", model="echo") == 32
    assert metric("crossgate_run_seconds_count", model="echo", device="cpu") == metric(
        "crossgate_batches_total", model="echo"
    )
    assert metric("crossgate_requests_total", outcome="ok") == 32
    found = families(gateway)
    failed = [
        s
        for s in found["crossgate_requests"].samples
        if s.name.endswith("_total") and s.labels["outcome"] != "ok" and s.value
    ]
    assert sum(s.value for s in failed) == 3
    for name in (
        "crossgate_queue_depth",
        "crossgate_batches_in_flight",
        "crossgate_worker_restarts",
        "crossgate_worker_memory_bytes",
        "crossgate_config_revision",
        "crossgate_model_load_seconds",
        "crossgate_reruns",
        "process_resident_memory_bytes",
    ):
        assert found[name].samples, name
    assert metric("crossgate_worker_memory_bytes") > 10 << 20
    assert 0 < metric("crossgate_model_load_seconds", model="echo") < 30


def test_the_listener_says_that_it_lives_and_is_ready(gateway):
    assert gateway.get("/healthz") == (200, "ok\n")
    status, body = gateway.get("/readyz")
    assert (status, '"ready": true' in body) == (200, True)
    assert gateway.get("/other")[0] == 404


def test_every_line_of_the_log_is_one_json_object(gateway):
    records = gateway.log()
    assert len(records) >= 2
    for record in records:
        assert {"time", "level", "event", "logger"} <= record.keys()
    assert any("model echo version 1 is ready" in record["event"] for record in records)


async def test_spans_of_a_batch_and_its_requests_link_to_each_other(
    models, start_gateway, collector, eventually
):
    models.write_loopback("echo", batching={"max_batch_size": 64, "max_queue_delay_us": 200_000})
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    gateway = start_gateway(models, environment=environment)
    async with gateway.async_client() as client:
        await asyncio.gather(*[client.infer("echo", ROW, request_id=f"r{i}") for i in range(12)])
        with pytest.raises(NotFound):
            await client.infer("unknown", ROW)
    await eventually(lambda: len(collector.named("batch")) >= 1)
    name = "inference.GRPCInferenceService/ModelInfer"
    await eventually(lambda: len(collector.named(name)) == 13)
    spans = collector.named(name)
    requests = {s.span_id: s for s in spans if values(s.attributes)["crossgate.model"] == "echo"}
    assert len(requests) == 12
    linked = set()
    for batch in collector.named("batch"):
        attributes = values(batch.attributes)
        assert attributes["crossgate.batch.size"] == len(batch.links)
        assert attributes["crossgate.device"] == "cpu"
        assert attributes["crossgate.version"] == "1"
        for link in batch.links:
            request = requests[link.span_id]
            assert request.kind == trace_pb2.Span.SPAN_KIND_SERVER
            assert request.trace_id == link.trace_id
            assert [back.span_id for back in request.links] == [batch.span_id]
            assert request.start_time_unix_nano <= batch.start_time_unix_nano
            assert request.end_time_unix_nano >= batch.start_time_unix_nano
            linked.add(link.span_id)
    assert linked == requests.keys()
    for child in ("queue", "arena", "wait", "run", "reply"):
        assert sorted(s.parent_span_id for s in collector.named(child)) == sorted(requests)
    (failed,) = [s for s in collector.named(name) if s.span_id not in requests]
    assert values(failed.attributes)["crossgate.model"] == "unknown"
    assert collector.services == {"crossgate"}


async def test_a_callers_trace_is_followed_and_others_are_not_sampled(
    models, start_gateway, collector, eventually
):
    models.write_loopback("echo")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    gateway = start_gateway(
        models,
        environment=environment,
        arguments=("--grpc-port=0", "--http-port=0", "--trace-ratio=0"),
    )
    name = "inference.GRPCInferenceService/ModelInfer"
    async with gateway.async_client() as client:
        for i in range(5):
            await client.infer("echo", ROW, request_id=str(i))
        await client.infer("echo", ROW, request_id="traced", metadata=SAMPLED)
    await eventually(lambda: collector.named(name) and collector.named("run"))
    gateway.process.terminate()
    assert gateway.wait() == 0  # whatever was sampled has been sent now
    (span,) = collector.named(name)
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, PARENT_ID)
    (batch,) = collector.named("batch")
    assert batch.trace_id == TRACE_ID


async def test_a_collector_that_is_away_costs_no_request_and_no_time_at_the_end(models, start_gateway):
    models.write_loopback("echo")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    gateway = start_gateway(models, environment=environment)
    async with gateway.async_client() as client:
        answers = await asyncio.gather(*[client.infer("echo", ROW) for _ in range(100)])
    assert len(answers) == 100
    gateway.process.terminate()
    assert gateway.wait(10) == 0


async def test_an_idle_gateway_with_two_workers_sleeps(models, start_gateway, eventually):
    models.write_loopback("echo", instance={"count": 2})
    gateway = start_gateway(models, slots=("cpu,capacity=2", "cpu,capacity=3"))
    async with gateway.async_client() as client:
        await asyncio.gather(*[client.infer("echo", ROW) for _ in range(50)])
    assert len(gateway.workers()) == 2

    def is_idle():
        """Whether all three processes together took less than 1.5 % of a processor for a while."""
        used_s, until_s = gateway.cpu_s(), time.monotonic() + IDLE_S
        wait_until(lambda: time.monotonic() >= until_s, 2 * IDLE_S)
        return gateway.cpu_s() - used_s <= 0.015 * IDLE_S

    await eventually(is_idle, timeout_s=3 * IDLE_S)
