"""What a run found out, as it goes into the JSON file, and the ratios that follow from it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.figures import Figures, median

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.machine import Machine
    from bench.peers.server import Placement
    from bench.scenario import Metric, Scenario, Target

OURS = "crossgate"
RAW = "onnxruntime"
LABELS: dict[Metric, str] = {
    "cpu_us": "server CPU per request",
    "requests_per_s": "requests/s",
    "p50_us": "p50, us",
    "p99_us": "p99, us",
    "added_p50_us": "p50 above the model alone, us",
    "mean_batch": "mean batch",
    "share_of_raw": "throughput",
}


@dataclass(frozen=True)
class SubjectResult:
    """`failure` says why there are no rounds."""

    name: str
    description: str
    versions: Mapping[str, str]
    rounds: tuple[Figures, ...] = ()
    failure: str = ""

    @property
    def void(self) -> list[str]:
        """Reasons with the round (from 1) that each one spoilt."""
        return [f"round {number}: {why}" for number, one in enumerate(self.rounds, 1) for why in one.void]


@dataclass(frozen=True)
class ScenarioResult:
    scenario: Scenario
    load: str  # what the load generator was told
    subjects: tuple[SubjectResult, ...]

    def subject(self, name: str) -> SubjectResult | None:
        return next((subject for subject in self.subjects if subject.name == name), None)


@dataclass(frozen=True)
class Unloaded:
    """A figure of a server that nobody calls: `idle` (percent of one core) or `ready` (seconds)."""

    name: str
    subject: str
    unit: str
    values: tuple[float, ...]
    at_most: float
    details: Mapping[str, float]
    failure: str = ""

    @property
    def value(self) -> float | None:
        return statistics.median(self.values) if self.values else None


@dataclass(frozen=True)
class Report:
    date: str
    machine: Machine
    placement: Placement
    generators: tuple[str, ...]  # their versions; the figures are the first one's
    rounds: int
    seconds: float
    scenarios: tuple[ScenarioResult, ...] = ()
    unloaded: tuple[Unloaded, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """`value` is None where a side is void or was not measured. `met` is None where nothing was wanted."""

    label: str
    value: float | None
    unit: str
    wanted: str = ""
    met: bool | None = None


def is_ours(name: str) -> bool:
    return name.partition(":")[0] == OURS


def quotient(ours: SubjectResult, other: SubjectResult, metric: Metric) -> float | None:
    """Median over rounds of ours / other, both taken from the same round; None if either has a void round."""
    if median(ours.rounds) is None or median(other.rounds) is None:
        return None
    quotients = []
    for mine, theirs in zip(ours.rounds, other.rounds, strict=True):
        value, reference = read(mine, metric), read(theirs, metric)
        if value is None or not reference:
            return None
        quotients.append(value / reference)
    return statistics.median(quotients)


def read(figures: Figures, metric: Metric) -> float | None:
    """`share_of_raw` and `added_p50_us` are relative: of one subject alone they are throughput and p50."""
    values: dict[Metric, float | None] = {
        "cpu_us": figures.cpu_us,
        "requests_per_s": figures.requests_per_s,
        "p50_us": figures.p50_us,
        "p99_us": figures.p99_us,
        "added_p50_us": figures.p50_us,
        "mean_batch": figures.mean_batch,
        "share_of_raw": figures.requests_per_s,
    }
    return values[metric]


def ratios(result: ScenarioResult) -> list[Ratio]:
    """For each variant of ours: what was wanted, then throughput and CPU against every other subject. Other
    variants of ours come only once: as what is compared with the first one."""
    found = []
    ours = [subject for subject in result.subjects if is_ours(subject.name)]
    for mine in ours:
        wanted = [target for target in result.scenario.targets if target.of in ("", mine.name)]
        found += [_wanted(result, mine, target) for target in wanted]
        others = [subject for subject in result.subjects if not is_ours(subject.name)]
        for other in [*others, *(ours[:1] if mine is not ours[0] else [])]:
            found += _compared(result, mine, other, wanted)
    return found


def _compared(
    result: ScenarioResult, ours: SubjectResult, other: SubjectResult, wanted: list[Target]
) -> list[Ratio]:
    """What `wanted` says already is left out."""
    where = f"{result.scenario.name}: {ours.name} / {other.name}"
    found = []
    if result.scenario.in_flight == 1 and other.name == RAW:
        if not any(target.metric == "added_p50_us" for target in wanted):
            found.append(Ratio(f"{where}, added p50", added_p50_us(ours, other), "us"))
    elif result.scenario.open_share is None:
        found.append(Ratio(f"{where}, requests/s", quotient(ours, other, "requests_per_s"), "x"))
    else:
        found.append(Ratio(f"{where}, p99", quotient(ours, other, "p99_us"), "x"))
    if not any(target.metric == "cpu_us" and target.relative_to == other.name for target in wanted):
        found.append(Ratio(f"{where}, server CPU per request", quotient(ours, other, "cpu_us"), "x"))
    return found


def added_p50_us(ours: SubjectResult, raw: SubjectResult) -> float | None:
    mine, alone = median(ours.rounds), median(raw.rounds)
    return None if mine is None or alone is None else mine.p50_us - alone.p50_us


def _wanted(result: ScenarioResult, ours: SubjectResult, target: Target) -> Ratio:
    against_raw = target.metric in ("share_of_raw", "added_p50_us")
    reference = RAW if against_raw else target.relative_to
    label = f"{result.scenario.name}: {LABELS[target.metric]}, {ours.name}"
    value, unit = None, ""
    if reference is None:
        figures = median(ours.rounds)
        value = None if figures is None else read(figures, target.metric)
    else:
        label += f" / {reference}"
        other = result.subject(reference)
        if target.metric == "added_p50_us":
            value = None if other is None else added_p50_us(ours, other)
        else:
            value, unit = None if other is None else quotient(ours, other, target.metric), "x"
    wanted = f"{'<=' if target.sense == 'at_most' else '>='} {target.bound:g}"
    return Ratio(label, value, unit, wanted, None if value is None else target.met(value))


def unloaded_ratio(figure: Unloaded) -> Ratio:
    value = figure.value
    met = None if value is None else value <= figure.at_most
    label = {"idle": "CPU of an idle gateway with two workers", "ready": "time to ready, one small model"}
    return Ratio(f"{label[figure.name]}, {figure.subject}", value, figure.unit, f"<= {figure.at_most:g}", met)
