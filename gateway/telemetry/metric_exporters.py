"""The SDK's exporters of metrics as senders. They read their part of the OTEL_EXPORTER_OTLP_* variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.sdk.metrics.export import MetricExportResult

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData


class _Sender:
    def __init__(self, exporter: MetricExporter) -> None:
        self._exporter = exporter

    def send(self, data: MetricsData) -> bool:
        """The exporter tries again within its timeout, and logs why it gives up."""
        return self._exporter.export(data) is MetricExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()


class GrpcSender(_Sender):
    def __init__(self) -> None:
        super().__init__(GrpcExporter())


class HttpSender(_Sender):
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        super().__init__(OTLPMetricExporter())
