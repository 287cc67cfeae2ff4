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

from bench import configuration as configuration_scenarios
from bench import configuration_report, plot, soak_report
from bench.configuration_setting import Setting
from bench.environment import MODEL_CACHE
from bench.generators import CHOICES, choose
from bench.load import LoadFailed
from bench.machine import this_machine
from bench.models import fetch
from bench.peers import mlserver, triton_python
from bench.peers.process import StartFailed
from bench.peers.server import Placement
from bench.report import to_json, to_markdown
from bench.results import Report, Unloaded, is_ours
from bench.runner import Options, peers_for, run_scenario
from bench.scenario import GRPCIO, MODELS, NATIVE, SCENARIOS
from bench.soak import Soak, soak_server
from bench.subjects import SERVERS, SUBJECTS
from bench.unloaded import measure_idle, measure_ready
from gateway.extension import find_extension

UNLOADED = ("idle", "ready")
ENVIRONMENTS = (triton_python.ENVIRONMENT, mlserver.ENVIRONMENT)
RESULTS = Path(__file__).parent / "results"
QUICK_ROUNDS, QUICK_SECONDS = 2, 1.5

ModelCpu = Annotated[int | None, typer.Option(help="Where models run. Default: the last CPU.")]
LoadCpu = Annotated[int | None, typer.Option(help="Where the load generator runs. Default: the first CPU.")]

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
        typer.echo(f"{name:22}    no load     {NATIVE}, {GRPCIO}")
    typer.echo(f"`soak` is a command of its own, for {', '.join(SERVERS)}")


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
    load: Annotated[
        str, typer.Option(help="auto (native where it is there), native, h2load, or both: h2load as a check.")
    ] = "auto",
    model_cpu: ModelCpu = None,
    load_cpu: LoadCpu = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, .md, .png.")] = None,
) -> None:
    """Measure and write a report. The exit code is 1 if a round was void or Crossgate did not run."""
    _need(scenario or [], [*(entry.name for entry in SCENARIOS), *UNLOADED], "scenario")
    _need([name.partition(":")[0] for name in peer or []], list(SUBJECTS), "peer")
    _need([load], list(CHOICES), "load generator")
    _refuse_debug_build()
    placement = _placement(model_cpu, load_cpu)
    try:
        generators = choose(load)
    except LoadFailed as error:
        raise typer.BadParameter(str(error)) from error
    if any(generator.name == "h2load" for generator in generators) and shutil.which("taskset") is None:
        raise typer.BadParameter("taskset is missing (Debian: util-linux)")
    options = Options(
        QUICK_ROUNDS if quick else rounds, QUICK_SECONDS if quick else seconds, placement, generators
    )
    now = datetime.datetime.now(datetime.UTC)
    report = Report(
        date=f"{now:%Y-%m-%d %H:%M} UTC",
        machine=this_machine(),
        placement=placement,
        generators=tuple(generator.version for generator in generators),
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
        for own in filter(is_ours, peer or [NATIVE, GRPCIO]):
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


@app.command()
def soak(
    peer: Annotated[str, typer.Option(help="A server; see `list`.")] = NATIVE,
    minutes: Annotated[float, typer.Option(min=0.05)] = 10.0,
    share: Annotated[float, typer.Option(help="Of the peak that is found first.", min=0.01, max=1)] = 0.7,
    cancel_share: Annotated[float, typer.Option(min=0, max=1)] = 0.05,
    malformed_share: Annotated[float, typer.Option(min=0, max=1)] = 0.01,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    model_cpu: ModelCpu = None,
    load_cpu: LoadCpu = None,
    out: Annotated[Path | None, typer.Option(help="Folder for soak.json, .md, .png.")] = None,
) -> None:
    """An open loop for long, with cancelled and malformed requests: is the memory flat, is every outcome as
    it should be? The exit code is 1 if not."""
    _need([peer.partition(":")[0]], list(SERVERS), "server")
    _refuse_debug_build()
    now = datetime.datetime.now(datetime.UTC)
    folder = out or RESULTS / f"soak-{now:%Y%m%d-%H%M%S}"
    wanted = Soak(minutes * 60, share, cancel_share, malformed_share, seed)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        try:
            result = soak_server(
                peer, wanted, _placement(model_cpu, load_cpu), MODEL_CACHE, Path(temporary), typer.echo
            )
        except (StartFailed, LoadFailed) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
    soak_report.write(result, f"{now:%Y-%m-%d %H:%M} UTC", this_machine(), folder)
    typer.echo(soak_report.verdict(result))
    typer.echo(f"wrote {folder}")
    if not result.met:
        raise typer.Exit(1)


@app.command()
def configuration(
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(configuration_scenarios.SCENARIOS)}.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of a round; etcd is away for six.", min=2)] = 10.0,
    rounds: Annotated[int, typer.Option(help="With changes, and as many without.", min=1)] = 8,
    changes: Annotated[int, typer.Option(help="In all rounds together.", min=1)] = 160,
    declared: Annotated[int, typer.Option(help="Models that are declared.", min=200)] = 10_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    model_cpu: ModelCpu = None,
    load_cpu: LoadCpu = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for configuration.md, a .json each, a .png.")
    ] = None,
) -> None:
    """How soon changes in etcd act, and what they, and an etcd that is away, cost requests. The exit code is
    1 if a scenario is void or misses what is wanted."""
    names = list(configuration_scenarios.SCENARIOS)
    _need(only or [], names, "scenario")
    _refuse_debug_build()
    now = datetime.datetime.now(datetime.UTC)
    folder = out or RESULTS / f"configuration-{now:%Y%m%d-%H%M%S}"
    placement = _placement(model_cpu, load_cpu)
    setting = Setting(folder, placement, seconds, rounds, changes, declared, seed, typer.echo)
    machine, outcomes = this_machine(), []
    for name in only or names:
        outcomes.append(configuration_scenarios.run(name, setting))
        typer.echo(configuration_report.verdict(outcomes[-1]))
        configuration_report.write(outcomes, f"{now:%Y-%m-%d %H:%M} UTC", machine, folder)
    typer.echo(f"wrote {folder}")
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


def _placement(model_cpu: int | None, load_cpu: int | None) -> Placement:
    cpus = sorted(os.sched_getaffinity(0))
    return Placement(
        model_cpu=cpus[-1] if model_cpu is None else model_cpu,
        load_cpu=cpus[0] if load_cpu is None else load_cpu,
    )


def _refuse_debug_build() -> None:
    profile = find_extension().profile
    if profile not in ("", "release"):
        raise typer.BadParameter(
            f"the native extension is a {profile} build, and its figures mean nothing: run `make native` for "
            "a release build"
        )


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
