"""One scenario: start all subjects, measure them in turns, stop them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench.cpu import usage
from bench.endpoint import describe
from bench.environment import MODEL_CACHE, NotInstalled
from bench.figures import disturbed
from bench.load import Job, LoadFailed
from bench.models import place
from bench.peers.process import StartFailed
from bench.results import ScenarioResult, SubjectResult
from bench.samples import prepare
from bench.subjects import subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.figures import Figures
    from bench.load import LoadGenerator
    from bench.peers.server import Placement
    from bench.samples import Work
    from bench.scenario import Scenario
    from bench.subject import Subject


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float  # of one round of one subject
    placement: Placement
    generators: Sequence[LoadGenerator]


def turns(count: int, round_number: int) -> list[int]:
    """The order of a round: each round begins with the next subject, so that none is always first."""
    return [(round_number + position) % count for position in range(count)]


def peers_for(scenario: Scenario, wanted: Sequence[str]) -> list[str]:
    """The scenario's own peers, or those of `wanted` (with their modes) that it has. Any mode of a peer
    counts as that peer."""
    if not wanted:
        return list(scenario.peers)
    known = {name.partition(":")[0] for name in scenario.peers}
    return [name for name in wanted if name.partition(":")[0] in known]


def run_scenario(
    scenario: Scenario, peers: Sequence[str], options: Options, say: Callable[[str], None]
) -> ScenarioResult:
    """A subject that does not start, or fails while it warms up, is reported and left out. Raises
    ModelMissing."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        root = Path(temporary)
        place(scenario.model, MODEL_CACHE, root / "models")
        work = prepare(scenario, root / "models")
        subjects: list[Subject] = []
        failures: dict[str, SubjectResult] = {}
        rounds: dict[str, list[Figures]] = {}
        try:
            for peer in peers:
                say(f"{scenario.name}: starting {peer}")
                folder = root / peer.replace(":", "-")
                started = _start(peer, work, options, folder)
                if isinstance(started, SubjectResult):
                    say(f"{scenario.name}: {peer} does not run: {started.failure.splitlines()[0]}")
                    failures[peer] = started
                else:
                    subjects.append(started)
                    rounds[peer] = []
            for number in range(options.rounds):
                for index in turns(len(subjects), number):
                    before = usage()
                    figures = subjects[index].measure()
                    figures = replace(figures, others_share=before.others_share(usage()))
                    rounds[subjects[index].name].append(figures)
                    say(f"{scenario.name}: round {number + 1}, {subjects[index].name}: {_line(figures)}")
            done = {
                each.name: SubjectResult(each.name, each.description, each.versions, tuple(rounds[each.name]))
                for each in subjects
            }
        finally:
            for each in subjects:
                each.stop()
    job = Job(
        "",
        work.bodies,
        root,
        options.placement.load_cpu,
        scenario.connections,
        scenario.streams,
    )
    load = "; ".join(generator.describe(job) for generator in options.generators)
    if scenario.open_share is not None:
        load += f"; then an open loop at {scenario.open_share:.0%} of each peak"
    return ScenarioResult(scenario, load, tuple(done.get(peer) or failures[peer] for peer in peers))


def _start(peer: str, work: Work, options: Options, folder: Path) -> Subject | SubjectResult:
    started = subject(peer, options.generators)
    folder.mkdir()
    try:
        started.start(work, options.placement, folder)
        started.warm_up(options.seconds)
    except (StartFailed, NotInstalled, LoadFailed, ChildProcessError, OSError, grpc.RpcError) as error:
        started.stop()
        return SubjectResult(peer, started.description, {}, failure=describe(error))
    except BaseException:
        started.stop()
        raise
    return started


def _line(figures: Figures) -> str:
    if figures.void:
        return f"VOID: {'; '.join(figures.void[:3])}"
    check = figures.check
    other = "" if check is None else f" ({check.generator}: {check.requests_per_s:,.0f}/s)"
    batch = "" if figures.mean_batch is None else f", mean batch {figures.mean_batch:.1f}"
    return (
        f"{figures.requests_per_s:,.0f}/s{other}, p50 {figures.p50_us / 1e3:.2f} ms, "
        f"p99 {figures.p99_us / 1e3:.2f} ms, CPU {figures.cpu_us:,.0f} us{batch}"
        f"{f', DISTURBED: others took {figures.others_share:.0%} of the CPUs' if disturbed(figures) else ''}"
    )
