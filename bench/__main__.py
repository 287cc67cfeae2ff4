"""`python -m bench`: measure Crossgate beside its peers."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from bench import plot
from bench.environment import MODEL_CACHE
from bench.load import h2load_version
from bench.machine import this_machine
from bench.models import fetch
from bench.peers import mlserver, triton_python
from bench.peers.server import Placement
from bench.report import to_json, to_markdown
from bench.results import OURS, Report, Unloaded, is_ours
from bench.runner import Options, peers_for, run_scenario
from bench.scenario import MODELS, SCENARIOS
from bench.subjects import SUBJECTS
from bench.unloaded import measure_idle, measure_ready

UNLOADED = ("idle", "ready")
ENVIRONMENTS = (triton_python.ENVIRONMENT, mlserver.ENVIRONMENT)
RESULTS = Path(__file__).parent / "results"
TOOLS = {"h2load": "nghttp2-client", "taskset": "util-linux"}  # {command: Debian's package}
QUICK_ROUNDS, QUICK_SECONDS = 2, 1.5

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def setup(
    peer: Annotated[list[str] | None, typer.Option(help="Only these environments: triton, mlserver.")] = None,
) -> None:
    """Install the peers' environments and fetch the models (about 1 GB)."""
    for environment in ENVIRONMENTS:
        if not peer or environment.name in peer:
            typer.echo(f"environment {environment.name}")
            environment.install()
    for model in MODELS:
        typer.echo(f"model {model.name}")
        fetch(model, MODEL_CACHE)


@app.command("list")
def list_all() -> None:
    """Show scenarios and peers."""
    for scenario in SCENARIOS:
        typer.echo(f"{scenario.name:22} {scenario.in_flight:4} in flight   {', '.join(scenario.peers)}")
    for name in UNLOADED:
        typer.echo(f"{name:22}    no load     {OURS}")


@app.command()
def run(
    scenario: Annotated[list[str] | None, typer.Option(help="Only these; see `list`.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="Only these; crossgate:FRONTEND chooses one.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="About the length of one round of one peer.")] = 8.0,
    quick: Annotated[
        bool, typer.Option(help="Two short rounds: shows that all works, proves nothing.")
    ] = False,
    model_cpu: Annotated[int | None, typer.Option(help="Where models run. Default: the last CPU.")] = None,
    load_cpu: Annotated[int | None, typer.Option(help="Where h2load runs. Default: the first CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, .md, .png.")] = None,
) -> None:
    """Measure and write a report. The exit code is 1 if a round was void or Crossgate did not run."""
    _need(scenario or [], [*(entry.name for entry in SCENARIOS), *UNLOADED], "scenario")
    _need([name.partition(":")[0] for name in peer or []], list(SUBJECTS), "peer")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise typer.BadParameter(f"{tool} is missing (Debian: {package})")
    cpus = sorted(os.sched_getaffinity(0))
    placement = Placement(
        model_cpu=cpus[-1] if model_cpu is None else model_cpu,
        load_cpu=cpus[0] if load_cpu is None else load_cpu,
    )
    options = Options(QUICK_ROUNDS if quick else rounds, QUICK_SECONDS if quick else seconds, placement)
    now = datetime.datetime.now(datetime.UTC)
    report = Report(
        date=f"{now:%Y-%m-%d %H:%M} UTC",
        machine=this_machine(),
        placement=placement,
        h2load=h2load_version(),
        rounds=options.rounds,
        seconds=options.seconds,
    )
    folder = out or RESULTS / f"{now:%Y%m%d-%H%M%S}"
    for entry in SCENARIOS:
        peers = peers_for(entry, peer or [])
        if peers and (not scenario or entry.name in scenario):
            result = run_scenario(entry, peers, options, typer.echo)
            report = replace(report, scenarios=(*report.scenarios, result))
            write(report, folder)  # after each one: what is done is not lost
    for name in UNLOADED:
        for own in filter(is_ours, peer or [OURS]):
            if not scenario or name in scenario:
                report = replace(report, unloaded=(*report.unloaded, _unloaded(name, own, options)))
    write(report, folder)
    missing = (
        "" if find_spec("matplotlib") is not None else ", no picture: matplotlib is missing (extra `bench`)"
    )
    typer.echo(f"wrote {folder}{missing}")
    subjects = [subject for result in report.scenarios for subject in result.subjects]
    failed = any(subject.void or (subject.failure and is_ours(subject.name)) for subject in subjects)
    if failed or any(figure.failure for figure in report.unloaded):
        raise typer.Exit(1)


def _unloaded(name: str, peer: str, options: Options) -> Unloaded:
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        if name == "idle":
            window_s = 2 * options.seconds
            figure = measure_idle(peer, options.placement, window_s, options.rounds, MODEL_CACHE, folder)
        else:
            figure = measure_ready(peer, options.placement, options.rounds, MODEL_CACHE, folder)
    failed = figure.failure.partition("\n")[0]
    typer.echo(f"{name}: {peer}: {failed or f'{figure.value:.3g} {figure.unit}'}")
    return figure


def _need(given: list[str], known: list[str], kind: str) -> None:
    for name in given:
        if name not in known:
            raise typer.BadParameter(f"no {kind} {name!r}; there are {', '.join(known)}")


def write(report: Report, folder: Path) -> None:
    """Writes report.json, report.md and, where matplotlib is installed (extra `bench`), report.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(to_json(report))
    (folder / "report.md").write_text(to_markdown(report))
    if report.scenarios and find_spec("matplotlib") is not None:
        plot.draw(report, folder / "report.png")


if __name__ == "__main__":
    app()
