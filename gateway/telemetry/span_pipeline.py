"""From records to the collector: spans are made, encoded and sent in a thread of their own.

With `spans` and `span_queue`, the only files that import OpenTelemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry.collector import TraceSettingsInvalid
from gateway.telemetry.span_queue import QueueLimits, SpanQueue
from gateway.telemetry.spans import Record, SpanMaker, resource_of, span_count

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from gateway.telemetry.collector import Collector
    from gateway.telemetry.trace import SpanCounts


class SpanPipeline:
    """`epoch_offset_ns` added to a monotonic time gives nanoseconds since the epoch."""

    def __init__(
        self,
        exporter: SpanExporter,
        epoch_offset_ns: int,
        service_version: str = "",
        limits: QueueLimits | None = None,
    ) -> None:
        maker = SpanMaker(resource_of(service_version), epoch_offset_ns)
        self._queue: SpanQueue[Record] = SpanQueue(exporter, maker.spans_of, limits or QueueLimits())

    @classmethod
    def to_collector(
        cls,
        collector: Collector,
        epoch_offset_ns: int,
        service_version: str = "",
        limits: QueueLimits | None = None,
    ) -> SpanPipeline:
        """A pipeline to a collector. The connection is made when there is something to send.

        Raises:
            TraceSettingsInvalid: what the environment says about it cannot be used.
        """
        return cls(_exporter(collector), epoch_offset_ns, service_version, limits)

    def record(self, record: Record) -> None:
        """Make and send the spans of a record when their turn comes."""
        self._queue.put(record, span_count(record))

    @property
    def counts(self) -> SpanCounts:
        return self._queue.counts

    def close(self, timeout_s: float) -> None:
        """Export what is queued within `timeout_s`; then cancel the export that hangs and drop the rest."""
        self._queue.close(timeout_s)


def _exporter(collector: Collector) -> SpanExporter:
    """The SDK reads the rest itself from the process's environment: headers, certificates, compression,
    timeout.
    """
    try:
        if collector.protocol == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

            return OverGrpc(endpoint=collector.endpoint)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint=collector.endpoint)
    except Exception as error:  # of many types: a wrong number, an unknown compression, no certificate
        raise TraceSettingsInvalid(
            "OTEL_EXPORTER_OTLP_*", collector.endpoint, f"no exporter can be made: {error!r}"
        ) from error
