"""The queue of spans, with collectors that answer, hang, refuse and are not there."""

from __future__ import annotations

import logging
import socket
import threading
import time

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from otlp_receiver import HttpReceiver

from gateway.telemetry.collector import Collector
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.span_pipeline import SpanPipeline
from gateway.telemetry.span_queue import PacedSpans, QueueLimits, SpanQueue
from gateway.telemetry.trace import FailureTrace, SampledContext, SpanCounts

SOON = QueueLimits(max_spans=64, delay_s=0.01, max_export_spans=16)


class FakeExporter(SpanExporter):
    """Keeps the sizes of what it got; while `answering` is clear it does not answer."""

    def __init__(self, result=SpanExportResult.SUCCESS):
        self.result = result
        self.sizes = []
        self.names = []
        self.answering = threading.Event()
        self.answering.set()
        self.called = threading.Event()
        self.is_shut_down = False

    def export(self, spans):
        self.sizes.append(len(spans))
        self.called.set()
        self.names += [span.name for span in spans]
        self.answering.wait(30)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self):
        self.is_shut_down = True
        self.answering.set()


def spans_of(record):
    name, count = record
    for _ in range(count):
        yield ReadableSpan(name)


def put_all(queue, records):
    for record in records:
        queue.put(record, record[1])


def test_all_spans_are_sent_before_the_end_in_batches_of_bounded_size():
    exporter = FakeExporter()
    queue = SpanQueue(exporter, spans_of, QueueLimits(max_spans=100, delay_s=60, max_export_spans=8))
    put_all(queue, [("a", 3), ("b", 20), ("c", 1)])
    queue.close(10)
    assert exporter.names == ["a"] * 3 + ["b"] * 20 + ["c"]
    assert max(exporter.sizes) <= 8
    assert exporter.is_shut_down
    assert queue.counts == SpanCounts(exported=24)


def test_full_batch_is_sent_without_waiting_for_the_delay():
    exporter = FakeExporter()
    queue = SpanQueue(exporter, spans_of, QueueLimits(max_spans=100, delay_s=600, max_export_spans=8))
    put_all(queue, [("a", 8)])
    assert exporter.called.wait(10)
    queue.close(10)


def test_oldest_record_makes_room_and_every_span_is_counted_once():
    exporter = FakeExporter()
    exporter.answering.clear()
    queue = SpanQueue(exporter, spans_of, SOON)
    put_all(queue, [("hangs", 16)])
    assert exporter.called.wait(10)
    put_all(queue, [(f"r{i}", 4) for i in range(100)])
    assert queue.waiting == 64
    assert queue.counts == SpanCounts(dropped=400 - 64)
    exporter.answering.set()
    queue.close(10)
    assert queue.counts == SpanCounts(exported=16 + 64, dropped=400 - 64)
    assert exporter.names[16:] == [f"r{i}" for i in range(84, 100) for _ in range(4)]


def test_record_larger_than_the_queue_is_dropped_whole():
    exporter = FakeExporter()
    queue = SpanQueue(exporter, spans_of, QueueLimits(max_spans=64, delay_s=60, max_export_spans=64))
    put_all(queue, [("large", 65), ("small", 1)])
    queue.close(10)
    assert exporter.names == ["small"]
    assert queue.counts == SpanCounts(exported=1, dropped=65)


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, RuntimeError("no way")])
def test_spans_that_are_not_taken_count_as_failed_and_the_rest_as_dropped(result, caplog):
    exporter = FakeExporter(result)
    queue = SpanQueue(exporter, spans_of, QueueLimits(max_spans=64, delay_s=60, max_export_spans=16))
    put_all(queue, [("a", 40)])
    queue.close(10)
    assert queue.counts == SpanCounts(failed=16, dropped=24)
    assert exporter.sizes == [16]


def test_record_whose_spans_cannot_be_made_does_not_end_the_thread(caplog):
    exporter = FakeExporter()

    def some(record):
        if record[0] == "bad":
            raise ValueError(record[0])
        yield from spans_of(record)

    queue = SpanQueue(exporter, some, QueueLimits(delay_s=60))
    put_all(queue, [("bad", 7), ("good", 2)])
    queue.close(10)
    assert exporter.names == ["good", "good"]
    assert queue.counts == SpanCounts(exported=2, failed=7)
    assert "a trace was lost" in caplog.text


def test_end_does_not_wait_for_an_export_that_hangs():
    exporter = FakeExporter()
    exporter.answering.clear()
    queue = SpanQueue(exporter, spans_of, SOON)
    put_all(queue, [("a", 16), ("b", 16), ("c", 16)])
    assert exporter.called.wait(10)
    start = time.monotonic()
    queue.close(0.05)
    assert time.monotonic() - start < 2.0
    counts = queue.counts
    assert counts.exported + counts.dropped + counts.failed == 48
    assert counts.dropped >= 32


def test_paced_spans_are_the_spans_they_were_made_of():
    spans = [ReadableSpan(str(i)) for i in range(20)]
    paced = PacedSpans(spans)
    assert list(paced) == list(paced) == spans
    assert (len(paced), paced[3], paced[1:3]) == (20, spans[3], spans[1:3])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, QueueLimits()),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, QueueLimits(max_spans=100)),
        ({"OTEL_BSP_SCHEDULE_DELAY": " 250 "}, QueueLimits(delay_s=0.25)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16"}, QueueLimits(max_export_spans=16)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100000"}, QueueLimits()),
    ],
)
def test_standard_variables_set_the_limits(environ, expected):
    assert QueueLimits.from_environment(environ) == expected


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_limit_that_is_no_positive_number_is_named_and_ignored(text, caplog):
    with caplog.at_level(logging.WARNING):
        assert QueueLimits.from_environment({"OTEL_BSP_MAX_QUEUE_SIZE": text}) == QueueLimits()
    assert f"OTEL_BSP_MAX_QUEUE_SIZE={text}" in caplog.text


def failure(i):
    return FailureTrace(SampledContext(i, i), "m", Outcome.EXPIRED, 100, 300, 110)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_black_hole_neither_blocks_recording_nor_grows_nor_delays_the_end(protocol):
    with socket.create_server(("127.0.0.1", 0)) as hole:  # it listens, and never answers
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}/v1/traces"
        limits = QueueLimits(max_spans=64, delay_s=0.01, max_export_spans=16)
        pipeline = SpanPipeline.to_collector(Collector(protocol, endpoint), 0, limits=limits)
        for i in range(1, 33):
            pipeline.record(failure(i))
        connection, _ = hole.accept()  # an export hangs now
        with connection:
            start = time.monotonic()
            for i in range(1, 5001):
                pipeline.record(failure(i))
            assert time.monotonic() - start < 1.0
            assert pipeline.counts.dropped >= 2 * 5000 - 64
            start = time.monotonic()
            pipeline.close(0.2)
            assert time.monotonic() - start < 2.0
            assert pipeline.counts.exported == 0


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_dead_collector_does_not_delay_the_end(protocol):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"
    pipeline = SpanPipeline.to_collector(Collector(protocol, endpoint), 0)
    for i in range(1, 2000):
        pipeline.record(failure(i))
    start = time.monotonic()
    pipeline.close(0.2)
    assert time.monotonic() - start < 2.0
    counts = pipeline.counts
    assert (counts.exported, counts.dropped + counts.failed) == (0, 2 * 1999)


@pytest.mark.slow
def test_spans_arrive_again_after_a_collector_refused_some():
    with HttpReceiver() as receiver:
        receiver.status = 400
        limits = QueueLimits(delay_s=0.01)
        collector = Collector("http/protobuf", receiver.endpoint)
        pipeline = SpanPipeline.to_collector(collector, 0, limits=limits)
        pipeline.record(failure(1))
        assert receiver.arrived.acquire(timeout=10)
        receiver.status = 200
        pipeline.record(failure(2))
        assert receiver.arrived.acquire(timeout=10)
        pipeline.close(10)
    assert pipeline.counts == SpanCounts(exported=2, failed=2)
