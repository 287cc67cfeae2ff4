"""Metrics as text: Prometheus's exposition format 0.0.4, and OpenMetrics 1.0.0.

The sample lines are written here rather than by prometheus_client, whose generic path takes about 15 us a
sample on the event loop's thread: more than a second for a thousand versions, and 0.15 s of added latency
for a hundred. Its parsers read all of this back in the tests.

Formats: prometheus.io/docs/instrumenting/exposition_formats, and OpenMetrics 1.0.0
(github.com/prometheus/OpenMetrics, `specification/OpenMetrics.md`).
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from gateway.telemetry.series import Distribution

if TYPE_CHECKING:
    from gateway.telemetry.account import Exemplar
    from gateway.telemetry.collection import Slice
    from gateway.telemetry.histogram import Histogram
    from gateway.telemetry.series import Series

_NS_PER_S: Final = 1_000_000_000
_LABELS: Final = "\0"  # where the labels of a histogram go in its template; no name contains it


class TextWriter:
    """Writes one exposition: slice by slice, then `end`."""

    def __init__(self, *, openmetrics: bool = False) -> None:
        self._openmetrics = openmetrics
        self._series: Series | None = None
        self._families: set[str] = set()  # their names so far
        self._template = ""
        self._escaped = _Escaped()

    def write(self, part: Slice) -> bytes:
        """The lines of a slice, below the series' own lines where it is the first."""
        series = part.series
        lines = []
        if series is not self._series:
            self._series = series
            self._template = ""
            lines.append(self._header(series))
        if series.kind == "histogram":
            for point in part.points:
                assert isinstance(point, Distribution), "a histogram's points are distributions"
                lines.append(self._histogram(series, point))
        else:
            escaped = self._escaped
            sample = _sample_template(series)
            lines += [
                sample % (*[escaped[label] for label in point[0]], repr(point[1])) for point in part.points
            ]
        return "".join(lines).encode()

    def end(self) -> bytes:
        """What follows the last slice."""
        return b"# EOF\n" if self._openmetrics else b""

    def _header(self, series: Series) -> str:
        name, kind = series.name, str(series.kind)
        if self._openmetrics and kind == "counter":
            family = name.removesuffix("_total")
            if family != name and family not in self._families:
                name = family
            else:  # a counter would have to be called otherwise: Triton's, and one beside a gauge of its name
                kind = "unknown"
        self._families.add(name)
        header = f"# HELP {name} {_escape_help(series.help)}\n# TYPE {name} {kind}\n"
        if self._openmetrics and series.unit and name.endswith(series.unit):
            header += f"# UNIT {name} {series.unit}\n"
        return header

    def _histogram(self, series: Series, point: Distribution) -> str:
        histogram = point.histogram
        if not self._template:
            self._template = _histogram_template(series, histogram)
        counts = list(accumulate(histogram.bucket_counts))
        total: float = histogram.sum
        if series.unit == "seconds":
            total /= _NS_PER_S
        escaped = self._escaped
        values = [
            f'{name}="{escaped[value]}"' for name, value in zip(series.labels, point.labels, strict=True)
        ]
        text = self._template % (*counts, repr(total), counts[-1])
        text = text.replace(_LABELS, ",".join(values)) if values else _without_labels(text)
        return self._with_exemplars(text, point) if self._openmetrics and point.exemplars else text

    def _with_exemplars(self, text: str, point: Distribution) -> str:
        lines = text.splitlines()
        for bucket, exemplar in point.exemplars.items():
            lines[bucket] += _exemplar(exemplar)
        return "\n".join([*lines, ""])


class _Escaped(dict[str, str]):
    """{label value: as it is written}; a scrape has few of them, each many times."""

    def __missing__(self, value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        self[value] = escaped
        return escaped


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _sample_template(series: Series) -> str:
    labels = ",".join([f'{name}="%s"' for name in series.labels])
    return f"{series.name}{{{labels}}} %s\n" if labels else f"{series.name} %s\n"


def _histogram_template(series: Series, histogram: Histogram) -> str:
    """All lines of a histogram: to be filled with the counts, the sum and the count, then with the labels."""
    name = series.name
    scale = _NS_PER_S if series.unit == "seconds" else 1
    bounds = [*[_bound(bound / scale) for bound in histogram.bounds], "+Inf"]
    buckets = "".join([f'{name}_bucket{{{_LABELS},le="{bound}"}} %d\n' for bound in bounds])
    return f"{buckets}{name}_sum{{{_LABELS}}} %s\n{name}_count{{{_LABELS}}} %d\n"


def _bound(value: float) -> str:
    """A bound as a float in both formats: a scraper's choice of format must not make another series."""
    text = f"{value:.12g}"
    return text if "." in text or "e" in text else f"{text}.0"


def _without_labels(text: str) -> str:
    return text.replace(f"{{{_LABELS},", "{").replace(f"{{{_LABELS}}}", "")


def _exemplar(exemplar: Exemplar) -> str:
    latency_s, at_s = exemplar.latency_ns / _NS_PER_S, exemplar.at_ms / 1000
    return f' # {{trace_id="{exemplar.trace_id:032x}"}} {latency_s!r} {at_s:.3f}'
