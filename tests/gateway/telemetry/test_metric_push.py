"""Metrics as real OTLP collectors receive them."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from metric_receiver import GrpcMetricReceiver, HttpMetricReceiver
from opentelemetry.proto.metrics.v1 import metrics_pb2
from otlp_receiver import values

from gateway.telemetry import metric_push
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.collection import Collection
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS
from gateway.telemetry.metric_push import MetricExportInvalid, MetricPush
from gateway.telemetry.series import QUEUE_DEPTH, WORKER_RESTARTS, Sample
from gateway.telemetry.spans import resource_of

MS = 1_000_000
CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


@pytest.fixture
def accounts():
    accounts = Accounts()
    account = accounts.open("digits", "3")
    account.record_batch([2, 3], [MS, 3 * MS], [7 * MS, 9 * MS], 1, 4 * MS, 1, "full", "cuda:0", 1)
    account.exemplify(7 * MS, 0xABC, 1_700_000_000_000, span_id=0xDEF)
    accounts.read_at_scrape(QUEUE_DEPTH, lambda: [Sample(("digits",), 4)])
    accounts.read_at_scrape(WORKER_RESTARTS, lambda: [Sample(("w0",), 2)])
    return accounts


@pytest.fixture
def environment(monkeypatch):
    """Sets the process's variables, which the SDK reads itself; returns them."""

    def set_(receiver, **more):
        found = {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
            **more,
        }
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        return found

    return set_


def of_model(points, model="digits"):
    return [point for point in points if values(point.attributes).get("model") == model]


@pytest.mark.parametrize("kind", [GrpcMetricReceiver, HttpMetricReceiver])
async def test_collector_gets_everything_that_is_scraped(kind, accounts, environment):
    with kind() as receiver:
        environ = environment(receiver, OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue")
        collection = Collection(accounts)
        push = MetricPush.from_environment(collection, environ=environ, service_version="1.2.3")
        assert await push.push()
        await push.finish()
    assert (push.exported, push.failed) == (2, 0)
    assert receiver.headers[0]["x-tenant"] == "blue"
    assert receiver.resources[0]["service.name"] == "crossgate"
    assert receiver.resources[0]["service.version"] == "1.2.3"
    found = receiver.metrics
    # but what has no points
    assert found.keys() == {part.series.name for part in collection.slices() if part.points}
    requests = found["crossgate_requests_total"][0].sum
    assert (requests.is_monotonic, requests.aggregation_temporality) == (True, CUMULATIVE)
    ok = [p for p in of_model(requests.data_points) if values(p.attributes)["outcome"] == "ok"]
    assert [(p.as_int, p.start_time_unix_nano) for p in ok] == [(2, accounts.open("digits", "3").opened_ns)]
    assert ok[0].time_unix_nano >= ok[0].start_time_unix_nano
    assert found["crossgate_queue_depth"][0].gauge.data_points[0].as_int == 4
    assert found["crossgate_worker_restarts_total"][0].sum.data_points[0].as_int == 2
    assert found["process_resident_memory_bytes"][0].unit == "By"


async def test_histograms_have_bounds_in_seconds_and_examples(accounts, environment):
    with GrpcMetricReceiver() as receiver:
        push = MetricPush.from_environment(Collection(accounts), environ=environment(receiver))
        assert await push.push()
        await push.finish()
    metric = receiver.metrics["crossgate_request_seconds"][0]
    (point,) = of_model(metric.histogram.data_points)
    assert (metric.unit, metric.histogram.aggregation_temporality) == ("s", CUMULATIVE)
    assert list(point.explicit_bounds) == [bound / 1e9 for bound in LATENCY_BOUNDS_NS]
    assert list(point.bucket_counts) == list(accounts.open("digits", "3").request_seconds.bucket_counts)
    assert (point.count, point.sum) == (2, 0.016)
    (exemplar,) = point.exemplars
    assert (exemplar.as_double, exemplar.trace_id, exemplar.span_id) == (
        0.007,
        (0xABC).to_bytes(16),
        (0xDEF).to_bytes(8),
    )
    sizes = receiver.metrics["crossgate_batch_size"][0].histogram.data_points[0]
    assert (list(sizes.explicit_bounds)[:3], sizes.sum) == ([1, 2, 4], 5)


@pytest.mark.slow
async def test_many_versions_leave_in_messages_of_bounded_size(environment):
    accounts = Accounts()
    for i in range(400):
        accounts.open(f"m{i}", "1")
    with GrpcMetricReceiver() as receiver:
        push = MetricPush.from_environment(Collection(accounts), environ=environment(receiver))
        assert await push.push()
        await push.finish()
    assert len(receiver.requests) > 5
    assert max(request.ByteSize() for request in receiver.requests) < 1 << 20
    models = {
        values(point.attributes)["model"]
        for metric in receiver.metrics["crossgate_rows_total"]
        for point in metric.sum.data_points
    }
    assert len(models) == 401


class FakeSender:
    """Takes parts as long as `takes` says so; `hangs` until it is shut down."""

    def __init__(self, *, takes=True, hangs=False, raises=False):
        self.takes, self.hangs, self.raises = takes, hangs, raises
        self.parts = 0
        self.down = threading.Event()

    def send(self, data):
        self.parts += 1
        if self.raises:
            raise ValueError("cannot be encoded")
        if self.hangs:
            self.down.wait(30)
        return self.takes

    def shutdown(self):
        self.down.set()


def pushing(accounts, sender, interval_s=3600.0):
    return MetricPush(Collection(accounts), resource_of(""), sender, interval_s)


@pytest.mark.parametrize("how", [{"takes": False}, {"raises": True}])
async def test_a_part_that_is_not_taken_ends_its_round_and_is_counted(how):
    accounts = Accounts()
    for i in range(500):
        accounts.open(f"m{i}", "1")
    sender = FakeSender(**how)
    push = pushing(accounts, sender)
    assert not await push.push()
    assert (sender.parts, push.samples()) == (1, [Sample(("exported",), 0), Sample(("failed",), 1)])
    sender.takes, sender.raises = True, False
    assert await push.push()
    assert push.samples() == [Sample(("exported",), 1), Sample(("failed",), 1)]
    await push.finish()


async def test_a_collector_that_hangs_holds_up_neither_the_loop_nor_the_end(accounts):
    sender = FakeSender(hangs=True)
    push = pushing(accounts, sender, interval_s=0.0)
    task = asyncio.ensure_future(push.run())
    async with asyncio.timeout(10):
        while not sender.parts:
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)  # the loop goes on
    assert sender.parts == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began_s = time.monotonic()
    await push.finish(timeout_s=0.05)
    assert time.monotonic() - began_s < 5
    assert (push.exported, push.failed, sender.down.is_set()) == (0, 1, True)


async def test_what_was_counted_since_the_last_round_is_pushed_at_the_end(accounts):
    sender = FakeSender()
    push = pushing(accounts, sender)
    task = asyncio.ensure_future(push.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sender.parts == 0
    await push.finish()
    assert (sender.parts, push.exported) == (1, 1)


@pytest.mark.slow
async def test_collector_that_is_not_there_fails_the_round_at_the_end_in_time(accounts, environment):
    with GrpcMetricReceiver() as receiver:
        pass  # its port is free again
    push = MetricPush.from_environment(Collection(accounts), environ=environment(receiver))
    began_s = time.monotonic()
    await push.finish(timeout_s=0.3)
    assert time.monotonic() - began_s < 5
    assert (push.exported, push.failed) == (0, 1)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"},
        {"OTEL_METRICS_EXPORTER": ""},
        {"OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_METRICS_EXPORTER": "prometheus"},
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"},
    ],
)
def test_nothing_is_pushed_unless_it_is_asked_for(environ):
    assert MetricPush.from_environment(Collection(Accounts()), environ=environ) is None


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"OTEL_METRICS_EXPORTER": "otlp,console"}, "OTEL_METRICS_EXPORTER"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
        (
            {
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "thrift",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        ),
    ],
)
def test_what_is_not_there_is_refused_by_name(environ, variable):
    with pytest.raises(MetricExportInvalid, match=variable) as caught:
        MetricPush.from_environment(Collection(Accounts()), environ=environ)
    assert caught.value.variable == variable


@pytest.mark.parametrize(
    ("environ", "interval_s", "warnings"),
    [
        ({}, 60.0, 0),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "250"}, 0.25, 0),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, 60.0, 1),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, 60.0, 1),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta"}, 60.0, 1),
        ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative"}, 60.0, 0),
    ],
)
def test_the_interval_is_the_environments_where_that_is_understood(environ, interval_s, warnings, caplog):
    assert metric_push._interval_s(environ) == interval_s
    assert len(caplog.records) == warnings
