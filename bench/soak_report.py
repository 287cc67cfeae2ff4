"""A soak as JSON, Markdown and one picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from bench.soak import GROWTH_AT_MOST

if TYPE_CHECKING:
    from pathlib import Path

    from bench.machine import Machine
    from bench.soak import SoakResult

MIB = 1 << 20


def write(result: SoakResult, date: str, machine: Machine, folder: Path) -> None:
    """Writes soak.json, soak.md and, where matplotlib is installed (extra `bench`), soak.png."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        **asdict(result),
        "load": msgspec.to_builtins(result.load),
        "date": date,
        "machine": asdict(machine),
        "server_growth": result.server_growth,
        "all_growth": result.all_growth,
        "met": result.met,
    }
    (folder / "soak.json").write_text(json.dumps(document, indent=1))
    (folder / "soak.md").write_text(to_markdown(result, date, machine))
    if find_spec("matplotlib") is not None:
        draw(result, folder / "soak.png")


def verdict(result: SoakResult) -> str:
    grown = " and ".join(_percent(each) for each in (result.server_growth, result.all_growth))
    return (
        f"{'met' if result.met else 'MISSED'}: {result.unexpected} unexpected outcomes, "
        f"{len(result.wrong)} wrong answers, memory grew by {grown} (with children)"
    )


def to_markdown(result: SoakResult, date: str, machine: Machine) -> str:
    soak, load = result.soak, result.load
    first, last = result.resident[0], result.resident[-1]
    rows = [
        ("rate", f"{result.rate_per_s:,.0f}/s, {soak.share:.0%} of the peak of {result.peak_per_s:,.0f}/s"),
        ("requests", f"{load.requests:,} in {load.window_s:g} s"),
        *((name, f"{count:,}") for name, count in load.outcomes.items()),
        ("cancelled", f"{load.cancelled.sent:,}, and {load.cancelled.answered_first:,} answered before"),
        ("malformed", f"{load.malformed.sent:,}, refused {load.malformed.rejected:,}"),
        ("unexpected", f"{result.unexpected:,}"),
        ("wrong answers among those looked at", str(len(result.wrong))),
        ("connections lost", str(load.connections.lost)),
    ]
    if load.latency_us is not None:
        at = load.latency_us
        rows.append(("p50, p99, p99.9 ms", f"{at.p50 / 1e3:.2f}, {at.p99 / 1e3:.2f}, {at.p999 / 1e3:.2f}"))
    if load.schedule is not None:
        rows.append(("started over 1 ms late", f"{load.schedule.late_starts:,}"))
    for name, before, after, grown in (
        ("resident MiB", first.server_bytes, last.server_bytes, result.server_growth),
        ("resident MiB with children", first.all_bytes, last.all_bytes, result.all_growth),
    ):
        text = f"{before / MIB:.1f} to {after / MIB:.1f}; once settled {_percent(grown)}"
        rows.append((name, f"{text} (wanted <= {GROWTH_AT_MOST:.0%})"))
    lines = [
        f"# Soak of {result.server}, {date}",
        "",
        f"{machine.cpu}, {machine.cores} cores, {machine.system}. {result.description}.",
        "",
        verdict(result),
        "",
        "| | |",
        "|---|--:|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    if load.errors:
        lines += ["", *(f"- {error.count} x {error.outcome}: {error.message}" for error in load.errors)]
    return "\n".join([*lines, ""])


def draw(result: SoakResult, path: Path) -> None:
    """Memory, p99 and rate over the run. Raises ImportError if matplotlib is not installed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    memory, latency, rate = figure.subplots(3, 1, sharex=True)
    at_s = [one.at_s for one in result.resident]
    memory.plot(at_s, [one.all_bytes / MIB for one in result.resident], label="with children")
    memory.plot(at_s, [one.server_bytes / MIB for one in result.resident], label="the gateway")
    memory.set_ylim(bottom=0)
    memory.legend(fontsize=8)
    memory.set_title(f"{result.server}: resident MiB", fontsize=9, loc="left")
    seconds = [one.second for one in result.load.series]
    latency.plot(seconds, [(one.p99_us or 0) / 1e3 for one in result.load.series])
    latency.set_ylim(bottom=0)
    latency.set_title("p99 of each second, ms", fontsize=9, loc="left")
    rate.plot(seconds, [one.requests_per_s for one in result.load.series])
    rate.set_ylim(bottom=0)
    rate.set_title("OK answers a second", fontsize=9, loc="left")
    figure.savefig(path, dpi=110)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:+.1%}"
