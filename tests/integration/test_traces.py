"""Traces of requests of Triton's client, through both front ends, as a real collector receives them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from opentelemetry.proto.trace.v1 import trace_pb2
from tritonclient.utils import InferenceServerException

from gateway.frontend.choice import find_native

sys.path.append(str(Path(__file__).parents[1] / "gateway" / "telemetry"))

from otlp_receiver import RECEIVERS, values

pytestmark = pytest.mark.slow

REQUEST = "inference.GRPCInferenceService/ModelInfer"
TRACE_ID = bytes(range(1, 17))
PARENT_ID = bytes(range(33, 41))
STATE = "vendor=1,other=abc"
PHASES = ("queue", "arena", "wait", "run", "reply")


def traceparent(*, sampled):
    return {"traceparent": f"00-{TRACE_ID.hex()}-{PARENT_ID.hex()}-{sampled:02d}"}


@pytest.fixture(params=["native", "grpcio"])
def frontend(request):
    if request.param == "native" and (reason := find_native().reason):
        if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
            pytest.fail(f"needs the native front end: {reason}")
        pytest.skip(f"needs the native front end: {reason}")
    return request.param


@pytest.fixture(params=["grpc", "http/protobuf"])
def receiver(request):
    with RECEIVERS[request.param]() as receiver:
        yield receiver


@pytest.fixture
def start(start_gateway, models, receiver, frontend):
    """Start a gateway whose traces go to the receiver."""

    def start(*arguments, **environment):
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base,
            "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=edge",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            **environment,
        }
        ports = ("--grpc-port=0", "--http-port=0", f"--frontend={frontend}")
        return start_gateway(models, environment=environment, arguments=(*ports, *arguments))

    return start


async def infer(client, model, value=0.0, *, request_id="", headers=None):
    tensor = triton.InferInput("INPUT0", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.full((1, 4), value, np.float32))
    return await client.infer(model, [tensor], request_id=request_id, headers=headers)


def end(gateway):
    """End the gateway: whatever was sampled has been sent then."""
    gateway.process.terminate()
    assert gateway.wait() == 0


def by_request(receiver):
    """The SERVER spans, {request id: span}"""
    return {values(s.attributes)["crossgate.request_id"]: s for s in receiver.named(REQUEST)}


async def test_requests_and_their_batches_are_whole_trees_that_link_to_each_other(models, start, receiver):
    models.write_loopback("echo", batching={"max_batch_size": 64, "max_queue_delay_us": 200_000})
    gateway = start(OTEL_TRACES_SAMPLER="parentbased_always_on")
    async with triton.InferenceServerClient(gateway.grpc) as client:
        headers = {**traceparent(sampled=True), "tracestate": STATE}
        await asyncio.gather(
            infer(client, "echo", request_id="caller", headers=headers),
            *[infer(client, "echo", request_id=f"r{i}") for i in range(12)],
        )
    end(gateway)
    spans, requests = receiver.spans, by_request(receiver)
    assert sorted(requests) == sorted(["caller", *[f"r{i}" for i in range(12)]])
    children = {}
    for span in spans:
        children.setdefault((span.trace_id, span.parent_span_id), []).append(span)
    for request in requests.values():
        below = [s for s in children[request.trace_id, request.span_id] if s.name != "batch"]
        assert sorted(s.name for s in below) == sorted(PHASES)
        in_order = sorted(below, key=lambda s: (s.start_time_unix_nano, PHASES.index(s.name)))
        assert [s.name for s in in_order] == list(PHASES)
        assert request.start_time_unix_nano <= in_order[0].start_time_unix_nano
        assert in_order[-1].end_time_unix_nano <= request.end_time_unix_nano
        assert request.kind == trace_pb2.Span.SPAN_KIND_SERVER
    by_id = {(s.trace_id, s.span_id): s for s in requests.values()}
    linked = []
    for batch in receiver.named("batch"):
        attributes = values(batch.attributes)
        assert attributes["crossgate.batch.size"] == len(batch.links)
        assert (attributes["crossgate.device"], attributes["crossgate.version"]) == ("cpu", "1")
        for link in batch.links:
            request = by_id[link.trace_id, link.span_id]
            assert [(b.trace_id, b.span_id) for b in request.links] == [(batch.trace_id, batch.span_id)]
            linked.append(link.span_id)
    assert sorted(linked) == sorted(s.span_id for s in requests.values())
    caller = requests["caller"]
    assert (caller.trace_id, caller.parent_span_id, caller.trace_state) == (TRACE_ID, PARENT_ID, STATE)
    assert values(caller.attributes)["crossgate.sampled_by"] == "caller"
    assert values(requests["r0"].attributes)["crossgate.sampled_by"] == "ratio"
    assert {resource["service.name"] for resource in receiver.resources} == {"crossgate"}
    assert {headers["x-tenant"] for headers in receiver.headers} == {"edge"}


async def test_slow_and_failed_requests_are_traced_after_the_fact_and_no_other(models, start, receiver):
    models.write_loopback("quick", options={"fail_on": 13})
    models.write_loopback("slow", options={"delay_us": 1_100_000})
    gateway = start("--trace-ratio=0")
    unwanted = traceparent(sampled=False)
    async with triton.InferenceServerClient(gateway.grpc) as client:
        await asyncio.gather(*[infer(client, "quick", request_id=f"quick{i}") for i in range(20)])
        await infer(client, "slow", request_id="slow")
        await infer(client, "slow", request_id="slow, unwanted", headers=unwanted)
        for request_id, headers in (("failed", None), ("failed, unwanted", unwanted)):
            with pytest.raises(InferenceServerException, match="13"):
                await infer(client, "quick", 13.0, request_id=request_id, headers=headers)
        with pytest.raises(InferenceServerException, match="unknown model"):
            await infer(client, "unknown", request_id="the caller's fault")
    end(gateway)
    requests = by_request(receiver)
    assert {id_: values(s.attributes)["crossgate.sampled_by"] for id_, s in requests.items()} == {
        "slow": "slow",
        "failed": "error",
    }
    slow, failed = requests["slow"], requests["failed"]
    [run] = [s for s in receiver.named("run") if s.parent_span_id == slow.span_id]
    assert run.end_time_unix_nano - run.start_time_unix_nano > 1e9
    assert failed.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert "13" in failed.status.message
    assert values(failed.attributes)["rpc.response.status_code"] == "INTERNAL"
    assert values(failed.attributes)["crossgate.device"] == "cpu"


async def test_request_that_ran_again_shows_the_try_that_was_lost(models, start, receiver):
    models.write_loopback(
        "fragile",
        options={"crash_on": 13},
        batching={"max_batch_size": 64, "max_queue_delay_us": 300_000},
    )
    gateway = start(OTEL_TRACES_SAMPLER="always_on")
    async with triton.InferenceServerClient(gateway.grpc) as client:
        _, *answers = await asyncio.gather(
            infer(client, "fragile", 13.0, request_id="culprit"),
            *[infer(client, "fragile", request_id=f"innocent{i}") for i in range(3)],
            return_exceptions=True,
        )
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    end(gateway)
    requests = by_request(receiver)
    tries = receiver.named("lost try")
    for i in range(3):
        request = requests[f"innocent{i}"]
        [lost] = [s for s in tries if s.parent_span_id == request.span_id]
        assert values(lost.attributes)["crossgate.worker"]
        assert values(lost.attributes)["crossgate.reason"]
        assert lost.end_time_unix_nano <= request.end_time_unix_nano
        assert values(request.attributes)["crossgate.reruns"] == 1
    assert values(requests["culprit"].attributes)["crossgate.outcome"] == "failed"
