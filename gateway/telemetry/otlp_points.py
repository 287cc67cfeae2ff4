"""Points of the collection in OpenTelemetry's terms: cumulative, histograms with explicit bounds.

Names are those of the scrape, so that dashboards are the same whichever way metrics come.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway.telemetry.series import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.resources import Resource

    from gateway.telemetry.collection import Slice
    from gateway.telemetry.series import Sample, Series

_UNITS: Final = {"seconds": "s", "bytes": "By", "ratio": "1", "": ""}
_NS_PER_S: Final = 1_000_000_000
_PIECE: Final = 8  # points between pauses: about 0.1 ms
_PAUSE_S: Final = 0.0001


class PacedPoints(list[Any]):
    """Data points whose reader pauses every few of them: encoding holds the interpreter's lock, which the
    event loop needs for every request.
    """

    def __iter__(self) -> Iterator[Any]:
        for number, point in enumerate(super().__iter__(), 1):
            yield point
            if number % _PIECE == 0:
                time.sleep(_PAUSE_S)


class OtlpBatch:
    """Gathers slices until they are taken. `at_ns` is when the values hold, `began_ns` when the process began
    to count, both since the epoch.
    """

    def __init__(self, resource: Resource, at_ns: int, began_ns: int) -> None:
        self.size = 0  # points
        self._resource = resource
        self._scope = InstrumentationScope("crossgate")
        self._at_ns = at_ns
        self._began_ns = began_ns
        self._metrics: list[Metric] = []
        self._series: Series | None = None
        self._points: PacedPoints = PacedPoints()

    def add(self, part: Slice) -> None:
        if part.series is not self._series:
            self._series = part.series
            self._points = PacedPoints()
            self._metrics.append(_metric(part.series, self._points))
        since_ns = part.since_ns or [self._began_ns] * len(part.points)
        self._points += [
            self._point(part.series, point, began_ns)
            for point, began_ns in zip(part.points, since_ns, strict=True)
        ]
        self.size += len(part.points)

    def take(self) -> MetricsData:
        """What has been gathered; the batch is empty again."""
        metrics = [metric for metric in self._metrics if metric.data.data_points]
        self._metrics, self._series, self.size = [], None, 0
        scope = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _point(
        self, series: Series, point: Sample | Distribution, began_ns: int
    ) -> NumberDataPoint | HistogramDataPoint:
        attributes = dict(zip(series.labels, point.labels, strict=True))
        if not isinstance(point, Distribution):
            return NumberDataPoint(attributes, began_ns, self._at_ns, point.value)
        histogram = point.histogram
        scale = _NS_PER_S if series.unit == "seconds" else 1
        counts = histogram.bucket_counts
        exemplars = [
            Exemplar({}, each.latency_ns / _NS_PER_S, each.at_ms * 1_000_000, each.span_id, each.trace_id)
            for each in point.exemplars.values()
        ]
        return HistogramDataPoint(
            attributes,
            began_ns,
            self._at_ns,
            sum(counts),
            histogram.sum / scale,
            counts,
            [bound / scale for bound in histogram.bounds],
            None,  # type: ignore[arg-type]  # the least and the greatest are optional in the protocol
            None,  # type: ignore[arg-type]
            exemplars,
        )


def _metric(series: Series, points: PacedPoints) -> Metric:
    cumulative = AggregationTemporality.CUMULATIVE
    data: Gauge | Histogram | Sum
    if series.kind == "gauge":
        data = Gauge(points)
    elif series.kind == "counter":
        data = Sum(points, cumulative, is_monotonic=True)
    else:
        data = Histogram(points, cumulative)
    return Metric(series.name, series.help, _UNITS[series.unit], data)
