"""Outcomes of configuration as JSON and as Markdown, a table and its line for each scenario."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench import configuration_latency, configuration_plot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.configuration_outcome import Figure, Outcome
    from bench.machine import Machine


def write(outcomes: Sequence[Outcome], date: str, machine: Machine, folder: Path) -> None:
    """Writes NAME.json for each scenario, configuration.md and, of the latency of changes and where
    matplotlib is installed (extra `bench`), change-latency.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        document = {
            **asdict(outcome),
            "date": date,
            "machine": asdict(machine),
            "counts": not outcome.reasons,
        }
        (folder / f"{outcome.name}.json").write_text(json.dumps(document, indent=1))
        measured = outcome.name == configuration_latency.NAME and outcome.details
        if measured and find_spec("matplotlib") is not None:
            configuration_plot.draw(outcome, folder / f"{outcome.name}.png")
    (folder / "configuration.md").write_text(to_markdown(outcomes, date, machine))


def to_markdown(outcomes: Sequence[Outcome], date: str, machine: Machine) -> str:
    lines = [
        f"# Changes of configuration, {date}",
        "",
        f"{machine.cpu}, {machine.cores} cores, {machine.system}; load average before: "
        f"{machine.load_average:.1f}",
        "",
        "| scenario | figure | value | wanted | |",
        "|---|---|--:|--:|---|",
    ]
    for outcome in outcomes:
        lines += [
            f"| {outcome.name} | {_cells(figure, void=bool(outcome.reasons))} |" for figure in outcome.figures
        ]
    for outcome in outcomes:
        lines += ["", f"**{outcome.name}**: {outcome.how}."]
        lines += [f"- VOID: {reason}" for reason in outcome.reasons]
    return "\n".join([*lines, ""])


def verdict(outcome: Outcome) -> str:
    """One line for each figure, for a terminal."""
    told = [f"{outcome.name}: VOID: {reason}" for reason in outcome.reasons]
    for figure in outcome.figures:
        judged = _judged(figure)
        told.append(f"{outcome.name}: {figure.label}: {_value(figure)}{f' ({judged})' if judged else ''}")
    return "\n".join(told)


def _cells(figure: Figure, *, void: bool) -> str:
    wanted = "" if figure.at_most is None else f"<= {figure.at_most:g} {figure.unit}".rstrip()
    return f"{figure.label} | {_value(figure)} | {wanted} | {'void' if void else _judged(figure)}"


def _value(figure: Figure) -> str:
    return "unknown" if figure.value is None else f"{figure.value:,.4g} {figure.unit}".rstrip()


def _judged(figure: Figure) -> str:
    return {None: "", True: "met", False: "**missed**"}[figure.met]
