"""A server under an open loop for long, with cancelled and malformed requests: memory and outcomes."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cpu import read_processes
from bench.figures import median
from bench.load import LoadFailed
from bench.loaded_server import LoadedServer
from bench.models import place
from bench.native_load import MAX_IN_FLIGHT, NativeLoad, kept_on
from bench.samples import decode, difference, prepare
from bench.scenario import MLP, Scenario
from bench.subjects import SERVERS
from crossgate.cli.load import LoadConfig, LoadUnavailable, OpenLoop, run_load
from crossgate.cli.payloads import malformed_of
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.peers.server import Placement
    from bench.samples import Work
    from crossgate.cli.load import LoadReport, Second

SCENARIO = Scenario("soak", MLP, connections=4, streams=32)
PEAK_SECONDS = 5.0
WARM_UP_S = 5.0
SAY_EVERY_S = 30
KEPT_ANSWERS = 200
GROWTH_AT_MOST = 0.02
SETTLED_AFTER_S = 60.0  # memory is to be flat from here on, or from a quarter of a shorter run
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Soak:
    """`share` is that of the peak; the other shares are of all requests."""

    seconds: float
    share: float = 0.7
    cancel_share: float = 0.05
    malformed_share: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Resident:
    """Resident memory at one time: of the process that was started, and of it and all its children."""

    at_s: float
    server_bytes: int
    all_bytes: int


@dataclass(frozen=True)
class SoakResult:
    """`wrong` says what is wrong with answers that were OK."""

    server: str
    description: str
    soak: Soak
    peak_per_s: float
    rate_per_s: float
    load: LoadReport
    resident: tuple[Resident, ...]
    wrong: tuple[str, ...]

    @property
    def server_growth(self) -> float | None:
        return growth([(one.at_s, one.server_bytes) for one in self.resident], self.soak.seconds)

    @property
    def all_growth(self) -> float | None:
        return growth([(one.at_s, one.all_bytes) for one in self.resident], self.soak.seconds)

    @property
    def unexpected(self) -> int:
        return self.load.unexpected + self.load.warm_up.unexpected

    @property
    def met(self) -> bool:
        grown = (self.server_growth, self.all_growth)
        flat = all(each is not None and each <= GROWTH_AT_MOST for each in grown)
        never = self.load.schedule.never_started if self.load.schedule is not None else 0
        return flat and not (self.unexpected or self.wrong or never)


def growth(readings: Sequence[tuple[float, int]], seconds: float) -> float | None:
    """(time, bytes): how much more the last tenth of the run has than the tenth after it settled, as a share;
    medians, so that a passing peak is no growth. None without readings in both."""
    settled_s = min(SETTLED_AFTER_S, seconds / 4)
    tenth_s = (seconds - settled_s) / 10
    first = [size for at_s, size in readings if settled_s <= at_s < settled_s + tenth_s]
    last = [size for at_s, size in readings if at_s >= seconds - tenth_s]
    if not first or not last:
        return None
    return statistics.median(last) / statistics.median(first) - 1


def soak_server(
    name: str, soak: Soak, placement: Placement, cache: Path, folder: Path, say: Callable[[str], None]
) -> SoakResult:
    """Raises StartFailed, LoadFailed or ModelMissing."""
    peer, _, mode = name.partition(":")
    server = SERVERS[peer](mode)
    place(SCENARIO.model, cache, folder / "models")
    work = prepare(SCENARIO, folder / "models")
    subject = LoadedServer(server, [NativeLoad()])
    say(f"soak: starting {name}")
    try:
        subject.start(work, placement, folder)
        subject.warm_up(PEAK_SECONDS)
        peak = median([subject.measure()])
        if peak is None:
            raise LoadFailed("the round that was to find the peak is void")
        rate_per_s = soak.share * peak.requests_per_s
        say(f"soak: peak {peak.requests_per_s:,.0f}/s; {rate_per_s:,.0f}/s for {soak.seconds:g} s")
        watch = _Watch(server.pids, say)
        bodies = [sample.request for sample in work.samples]
        wrong = malformed_of(pb.ModelInferRequest.FromString(bodies[0])) if soak.malformed_share else []
        config = LoadConfig(
            target=server.address,
            mode=OpenLoop(rate_per_s, MAX_IN_FLIGHT),
            connections=SCENARIO.connections,
            warm_up_s=WARM_UP_S,
            duration_s=soak.seconds,
            cancel_share=soak.cancel_share,
            malformed_share=soak.malformed_share,
            malformed_bodies=len(wrong),
            seed=soak.seed,
            sample=KEPT_ANSWERS,
        )
        try:
            with kept_on(placement.load_cpu):
                result = run_load(config, [*bodies, *wrong], watch)
        except (LoadUnavailable, ConnectionError) as error:
            raise LoadFailed(f"native load generator: {error}") from error
    finally:
        subject.stop()
    return SoakResult(
        server=name,
        description=server.description,
        soak=soak,
        peak_per_s=peak.requests_per_s,
        rate_per_s=rate_per_s,
        load=result.report,
        resident=tuple(watch.resident),
        wrong=tuple(wrong_answers(work, result.report.sampled_bodies, result.answers)),
    )


def wrong_answers(work: Work, bodies: Sequence[int], answers: Sequence[bytes]) -> list[str]:
    """What is wrong with answers to the samples of these numbers; empty if nothing."""
    model = work.scenario.model
    found = []
    for body, answer in zip(bodies, answers, strict=True):
        deviation = difference(work.samples[body].expected, decode(answer, model.outputs))
        if deviation > model.tolerance:
            found.append(f"an answer to sample {body} is off by {deviation:.3g}")
    return found


class _Watch:
    """Reads memory once a second, in the thread that waits for the load."""

    def __init__(self, pids: Callable[[], frozenset[int]], say: Callable[[str], None]) -> None:
        self.resident: list[Resident] = []
        self._pids = pids
        self._root = _root(pids())
        self._say = say
        self._began_s: float | None = None

    def __call__(self, second: Second) -> None:
        if second.second < 0:
            return
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s = now_s
        sizes = {pid: resident_bytes(pid) for pid in self._pids()}
        one = Resident(now_s - self._began_s, sizes.get(self._root, 0), sum(sizes.values()))
        self.resident.append(one)
        if second.second % SAY_EVERY_S == 0:
            latency = "" if second.p99_us is None else f", p99 {second.p99_us / 1e3:.2f} ms"
            self._say(
                f"soak: {second.second} s, {second.requests_per_s:,.0f}/s{latency}, "
                f"{one.server_bytes / 2**20:.1f} MiB, with children {one.all_bytes / 2**20:.1f} MiB, "
                f"{second.unexpected} unexpected"
            )


def _root(pids: frozenset[int]) -> int:
    """The one that another process has started."""
    processes = read_processes()
    return next(pid for pid in pids if pid in processes and processes[pid].parent not in pids)


def resident_bytes(pid: int) -> int:
    """0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
