"""A report as one picture: a row per scenario, a bar per peer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.figures import median
from bench.results import RAW, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from bench.figures import Figures
    from bench.results import Report, ScenarioResult

OURS, OURS_IN_PYTHON, OTHERS, TAIL = "#0b6e4f", "#7fb69f", "#8d99ae", "#c9d1dc"
HEADROOM = 1.15  # of the longest bar of a server; ONNX Runtime alone may be far beyond it and is cut there


@dataclass(frozen=True)
class Panel:
    """`tail` is drawn pale behind the bar."""

    title: str
    value: Callable[[Figures], float]
    tail: Callable[[Figures], float] | None = None


PANELS = (
    Panel("requests/s", lambda figures: figures.requests_per_s),
    Panel("server CPU us/request", lambda figures: figures.cpu_us),
    Panel("p50 and p99, ms", lambda figures: figures.p50_us / 1e3, lambda figures: figures.p99_us / 1e3),
)


def draw(report: Report, path: Path) -> None:
    """Raises ImportError if matplotlib is not installed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(report.scenarios)
    peers = max(len(result.subjects) for result in report.scenarios)
    figure = Figure(figsize=(13, rows * (0.9 + 0.32 * peers)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(PANELS), squeeze=False)
    for row, result in zip(axes, report.scenarios, strict=True):
        for axis, panel in zip(row, PANELS, strict=True):
            _panel(axis, result, panel)
    machine = report.machine
    figure.suptitle(f"{machine.cpu}, {machine.cores} cores, {report.date}", fontsize=10)
    figure.savefig(path, dpi=110)


def _panel(axis: Any, result: ScenarioResult, panel: Panel) -> None:
    measured = [(subject.name, median(subject.rounds)) for subject in reversed(result.subjects)]
    longest = panel.tail or panel.value
    servers = [longest(figures) for name, figures in measured if figures is not None and name != RAW]
    limit = HEADROOM * max(servers) if servers else math.inf
    for position, (name, figures) in enumerate(measured):
        if figures is None:
            axis.text(0, position, " void or not run", va="center", fontsize=8)
            continue
        if panel.tail is not None:
            axis.barh(position, min(limit, panel.tail(figures)), color=TAIL)
        axis.barh(position, min(limit, panel.value(figures)), color=_color(name))
        label = " / ".join(_label(read(figures)) for read in (panel.value, panel.tail) if read is not None)
        cut = ">> " if longest(figures) > limit else ""
        axis.text(min(limit, longest(figures)), position, f" {cut}{label}", va="center", fontsize=8)
    axis.set_yticks(range(len(measured)), [name for name, _ in measured], fontsize=8)
    axis.set_ylim(-0.6, len(measured) - 0.4)
    axis.margins(x=0.25)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{result.scenario.name}: {panel.title}", fontsize=9, loc="left")


def _color(name: str) -> str:
    if not is_ours(name):
        return OTHERS
    return OURS_IN_PYTHON if name.endswith(":grpcio") else OURS


def _label(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
