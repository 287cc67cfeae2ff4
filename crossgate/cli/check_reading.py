"""What a gateway says of itself on its HTTP port, as a check needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


class NotMetrics(Exception):
    """What answers is no gateway; its message says why."""


@dataclass(frozen=True)
class Readiness:
    """As `/readyz` has it."""

    ready: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One sample of a series."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Figures:
    """`samples` is {name: samples}; histograms are left out."""

    samples: Mapping[str, tuple[Figure, ...]]

    def of(self, name: str) -> tuple[Figure, ...]:
        return self.samples.get(name, ())

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of those with these labels, 0 where there is none."""
        return sum(
            each.value for each in self.of(name) if all(each.labels.get(k) == v for k, v in labels.items())
        )


@dataclass(frozen=True)
class Reading:
    readiness: Readiness
    figures: Figures


def read_readiness(body: bytes) -> Readiness:
    """Raises NotMetrics where it is no answer of `/readyz`."""
    try:
        said = json.loads(body)
        texts = [tuple(str(each) for each in said[name]) for name in ("reasons", "notes")]
        return Readiness(bool(said["ready"]), *texts)
    except (ValueError, KeyError, TypeError):
        raise NotMetrics("/readyz does not answer as a gateway does") from None


def read_metrics(text: str) -> Figures:
    """Raises NotMetrics where there is none of a gateway."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, list[Figure]] = {}
    try:
        for family in text_string_to_metric_families(text):
            if family.type != "histogram":
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append(Figure(sample.labels, sample.value))
    except (ValueError, IndexError, KeyError) as error:
        raise NotMetrics(f"/metrics is no text of Prometheus: {error}") from None
    if "crossgate_models" not in samples:
        raise NotMetrics("/metrics has no series crossgate_models")
    return Figures({name: tuple(found) for name, found in samples.items()})
