"""A report as JSON and as Markdown, ratios first."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.figures import disturbed, median
from bench.results import is_ours, ratios, unloaded_ratio

if TYPE_CHECKING:
    from bench.figures import Figures
    from bench.results import Ratio, Report, ScenarioResult, SubjectResult

MIB = 1 << 20


def to_json(report: Report) -> str:
    """Everything that was measured, every round, and the ratios."""
    document = {"ratios": [asdict(ratio) for ratio in all_ratios(report)], **asdict(report)}
    return json.dumps(document, indent=1, default=str)


def all_ratios(report: Report) -> list[Ratio]:
    """What was wanted comes first."""
    found = [ratio for result in report.scenarios for ratio in ratios(result)]
    found += [unloaded_ratio(figure) for figure in report.unloaded]
    return sorted(found, key=lambda ratio: not ratio.wanted)


def to_markdown(report: Report) -> str:
    lines = [f"# Crossgate measured, {report.date}", "", *_summary(report), "", "## Ratios", ""]
    lines += _ratio_table(all_ratios(report))
    for result in report.scenarios:
        lines += ["", *_scenario(result)]
    lines += _checks(report)
    for figure in report.unloaded:
        lines += ["", f"## {figure.name}, {figure.subject}", ""]
        if figure.failure:
            lines.append(f"Not measured: {figure.failure.splitlines()[0]}")
            continue
        lines.append(f"{', '.join(f'{value:.3g}' for value in figure.values)} {figure.unit}.")
        lines += [f"{name}: {value:.3g}." for name, value in figure.details.items()]
    return "\n".join([*lines, "", *_setup(report), ""])


def _summary(report: Report) -> list[str]:
    machine = report.machine
    return [
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}, "
        f"Python {machine.python}. Medians of {report.rounds} rounds of about {report.seconds:g} s each, "
        f"servers in turns. Load average when it began: {machine.load_average:.2f}.",
    ]


def _ratio_table(found: list[Ratio]) -> list[str]:
    if not found:
        return ["None: Crossgate was not among the peers."]
    verdicts = {True: "met", False: "**missed**", None: ""}
    lines = ["| what | value | wanted | |", "|---|--:|--:|---|"]
    for ratio in found:
        value = (
            "void or not measured" if ratio.value is None else f"{_number(ratio.value)} {ratio.unit}".strip()
        )
        lines.append(f"| {ratio.label} | {value} | {ratio.wanted} | {verdicts[ratio.met]} |")
    return lines


def _scenario(result: ScenarioResult) -> list[str]:
    scenario = result.scenario
    lengths = (
        ""
        if scenario.lengths == (0,)
        else f", lengths {', '.join(map(str, scenario.lengths))} in equal numbers"
    )
    how = f"{scenario.in_flight} in flight{lengths}"
    if scenario.open_share is not None:
        how = f"open loop at {scenario.open_share:.0%} of each server's peak with {how}"
    lines = [
        f"## {scenario.name}",
        "",
        f"Model {scenario.model.name}, {how}.",
        "",
        "| peer | requests/s | p50 ms | p99 ms | mean batch | server CPU us/request (by process) "
        "| PSS MiB | RSS MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_row(subject) for subject in result.subjects]
    notes = [note for subject in result.subjects for note in _notes(subject)]
    return [*lines, "", *notes] if notes else lines


def _row(subject: SubjectResult) -> str:
    figures = median(subject.rounds)
    name = f"**{subject.name}**" if is_ours(subject.name) else subject.name
    if figures is None:
        return f"| {name} | {'void' if subject.void else 'not run'} | | | | | | |"
    batch = "not reported" if figures.mean_batch is None else f"{figures.mean_batch:.1f}"
    return (
        f"| {name} | {_number(figures.requests_per_s)} | {figures.p50_us / 1e3:.2f} "
        f"| {figures.p99_us / 1e3:.2f} | {batch} | {_cpu(figures)} "
        f"| {figures.pss_bytes / MIB:.0f} | {figures.rss_bytes / MIB:.0f} |"
    )


def _checks(report: Report) -> list[str]:
    """Both load generators on the same servers, in the same rounds; nothing if only one was used."""
    rows = []
    for result in report.scenarios:
        for subject in result.subjects:
            figures = median(subject.rounds)
            if figures is None or figures.check is None:
                continue
            check = figures.check
            rows.append(
                f"| {result.scenario.name}, {subject.name} | {_number(figures.requests_per_s)} "
                f"| {_number(check.requests_per_s)} | {figures.p50_us / 1e3:.2f} | {check.p50_us / 1e3:.2f} "
                f"| {_number(figures.cpu_us)} | {_number(check.cpu_us)} "
                f"| {figures.generator_cpu_us:.1f} | {check.generator_cpu_us:.1f} |"
            )
    if not rows:
        return []
    return [
        "",
        "## Cross-check of the load generators",
        "",
        "The same servers in the same rounds. A generator that costs less leaves more to the server.",
        "",
        "| | requests/s, native | h2load | p50 ms, native | h2load | server CPU us, native | h2load "
        "| generator's CPU us, native | h2load |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]


def _cpu(figures: Figures) -> str:
    """The sum, and the share of each process that uses any."""
    parts = [_number(part) for part in figures.cpu_us_by_process if part >= 0.01 * figures.cpu_us]
    total = _number(figures.cpu_us)
    return f"{total} ({' + '.join(parts)})" if len(parts) > 1 else total


def _notes(subject: SubjectResult) -> list[str]:
    if subject.failure:
        return [f"- {subject.name} did not run: {subject.failure.splitlines()[0]}"]
    shares = [
        f"{one.others_share:.0%} in round {n}" for n, one in enumerate(subject.rounds, 1) if disturbed(one)
    ]
    notes = [f"- {subject.name} is **void**, {reason}" for reason in subject.void]
    if shares:
        notes.append(f"- {subject.name} was disturbed: other work took of the CPUs {', '.join(shares)}")
    return notes


def _setup(report: Report) -> list[str]:
    placement = report.placement
    lines = [
        "## Set-up",
        "",
        f"- Every model runs on CPU {placement.model_cpu} with {placement.threads} thread(s), raw ONNX "
        f"Runtime likewise; the load generator is kept on CPU {placement.load_cpu}; transports may use all "
        "CPUs.",
        f"- Load: {', checked by '.join(report.generators)}.",
        "- A round is void unless every request was answered with as many bytes as were wanted, the server's "
        "own counts (where it has any) equal what was sent, and all sampled answers (before, during and "
        "after the load) are right.",
        "- Server CPU is user + system time of all its processes; PSS counts shared memory once.",
        "",
        "| scenario | load |",
        "|---|---|",
    ]
    lines += [f"| {result.scenario.name} | `{result.load}` |" for result in report.scenarios]
    lines += ["", "| peer | what it is | versions |", "|---|---|---|"]
    subjects = {subject.name: subject for result in report.scenarios for subject in result.subjects}
    for subject in subjects.values():
        versions = ", ".join(f"{name} {version}" for name, version in subject.versions.items())
        lines.append(f"| {subject.name} | {subject.description} | {versions} |")
    return lines


def _number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
