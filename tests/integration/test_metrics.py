"""What a real gateway exposes and pushes, beside the accounts of requests."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

sys.path.append(str(Path(__file__).parents[1] / "gateway" / "telemetry"))

from metric_receiver import GrpcMetricReceiver

pytestmark = pytest.mark.slow

ROW = {"INPUT0": np.zeros((1, 4), np.float32)}
TRACE_ID = bytes(range(1, 17)).hex()
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{'21' * 8}-01"}


def openmetrics(gateway):
    """{family name: family}"""
    url = f"http://{gateway.http}/metrics"
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        return {f.name: f for f in text_string_to_metric_families(response.read().decode())}


def value(found, name, **labels):
    """The only sample of a family that has these labels"""
    (sample,) = [s for s in found[name].samples if labels.items() <= s.labels.items()]
    return sample.value


async def test_a_gateway_shows_its_workers_itself_and_examples_of_requests(models, start_gateway, eventually):
    models.write_loopback("echo", batching={"max_batch_size": 8, "max_queue_size": 77})
    with GrpcMetricReceiver() as receiver:
        gateway = start_gateway(
            models,
            slots=("cpu,capacity=2",),
            environment={
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
                "CROSSGATE_SERVE_TRITON_METRICS": "1",
            },
        )
        async with gateway.async_client() as client:
            await asyncio.gather(*[client.infer("echo", ROW) for _ in range(20)])
            await client.infer("echo", ROW, metadata=SAMPLED)
        found = openmetrics(gateway)
        (worker,) = {s.labels["worker"] for s in found["crossgate_worker_up"].samples}
        assert value(found, "crossgate_worker_up", worker=worker, device="cpu") == 1
        assert value(found, "crossgate_worker_capacity", worker=worker) == 2
        assert value(found, "crossgate_worker_credits", worker=worker) >= 2
        assert value(found, "crossgate_worker_busy_seconds", worker=worker) > 0
        assert value(found, "crossgate_worker_queue_depth", worker=worker) == 0
        used = value(found, "crossgate_arena_used_bytes", worker=worker)
        assert value(found, "crossgate_arena_bytes", worker=worker) > used
        assert value(found, "crossgate_queue_limit", model="echo") == 77
        assert value(found, "crossgate_model_ready", model="echo", version="1") == 1
        assert value(found, "crossgate_draining") == 0
        assert value(found, "crossgate_build_info") == 1
        assert value(found, "crossgate_config_rejected") == 0
        bursts = {s.name: s.value for s in found["crossgate_burst_size"].samples if "le" not in s.labels}
        assert bursts["crossgate_burst_size_sum"] == 21
        lag = {s.name: s.value for s in found["crossgate_loop_lag_seconds"].samples if "le" not in s.labels}
        assert lag["crossgate_loop_lag_seconds_count"] > 0
        assert value(found, "nv_inference_request_success", model="echo") == 21
        assert value(found, "nv_inference_pending_request_count", model="echo") == 0
        examples = [s.exemplar for s in found["crossgate_request_seconds"].samples if s.exemplar]
        assert [e.labels["trace_id"] for e in examples if e.labels["trace_id"] == TRACE_ID] == [TRACE_ID]
        await eventually(lambda: len(receiver.metrics.get("crossgate_rows_total", ())) >= 2)
        assert value(openmetrics(gateway), "crossgate_metric_pushes", result="failed") == 0
        gateway.process.terminate()
        assert gateway.wait() == 0
        pushed = receiver.metrics["crossgate_burst_size"][-1].histogram.data_points[0]
        assert pushed.sum == 21


async def test_a_metric_collector_that_is_away_costs_no_request_and_little_time_at_the_end(
    models, start_gateway, eventually
):
    models.write_loopback("echo")
    environment = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "50",
    }
    gateway = start_gateway(models, environment=environment)
    async with gateway.async_client() as client:
        assert len(await asyncio.gather(*[client.infer("echo", ROW) for _ in range(100)])) == 100
    await eventually(
        lambda: value(openmetrics(gateway), "crossgate_metric_pushes", result="failed") >= 1, timeout_s=20
    )
    gateway.process.terminate()
    assert gateway.wait(10) == 0
