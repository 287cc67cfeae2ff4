"""How soon changes acted, and the p99 of requests with the changes marked, as one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.configuration_outcome import Outcome

OURS, CALM, MARK = "#0b6e4f", "#8d99ae", "#d1495b"


def draw(outcome: Outcome, path: Path) -> None:
    """Raises ImportError if matplotlib is not installed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    distribution, over_time = figure.subplots(2, 1)
    _distribution(distribution, sorted(outcome.details["latencies_ms"]))
    _over_time(over_time, outcome.details["rounds"])
    void = f"VOID: {'; '.join(outcome.reasons)}" if outcome.reasons else ""
    figure.suptitle(void or outcome.name, fontsize=9, wrap=True)
    figure.savefig(path, dpi=110)


def _distribution(axis: Any, latencies_ms: list[float]) -> None:
    """The share of changes that acted within a time."""
    shares = [100 * (rank + 1) / len(latencies_ms) for rank in range(len(latencies_ms))]
    axis.step(latencies_ms, shares, where="post", color=OURS)
    axis.axhline(99, color=CALM, linewidth=0.8, linestyle="--")
    axis.set_xlim(left=min(0, *latencies_ms, 0))
    axis.set_title(
        "changes that act on requests within so many ms of their commit, %", fontsize=9, loc="left"
    )


def _over_time(axis: Any, rounds: list[Mapping[str, Any]]) -> None:
    """The p99 of each second, round after round; each change is a mark below."""
    start_s = 0.0
    for each in rounds:
        seconds = each["seconds"]
        color = OURS if each["disturbed"] else CALM
        axis.plot(
            [start_s + one["second"] + 0.5 for one in seconds],
            [(one["p99_us"] or 0) / 1e3 for one in seconds],
            color=color,
            marker=".",
            markersize=3,
        )
        marks = [start_s + change["at_s"] for change in each["changes"]]
        axis.plot(marks, [0] * len(marks), "|", color=MARK, markersize=8)
        start_s += len(seconds) + 1
    axis.set_ylim(bottom=-0.05)
    axis.set_xlabel("seconds, one round after the other", fontsize=8)
    axis.set_title(
        "p99 of requests, second by second, ms: with changes (green, changes marked) and without (grey)",
        fontsize=9,
        loc="left",
    )
