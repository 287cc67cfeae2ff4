"""Load at a share of a gateway's peak, for as long as something else is done."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from bench.configuration_place import request
from bench.load import LoadFailed
from bench.native_load import MAX_IN_FLIGHT, flaws, kept_on
from crossgate.cli.load import ClosedLoop, LoadConfig, LoadUnavailable, OpenLoop, run_load

if TYPE_CHECKING:
    from crossgate.cli.load import LoadReport, Second

CONNECTIONS, STREAMS = 4, 32
PEAK_SECONDS = 4.0
SLICE_SECONDS = 5.0
WARM_UP_S = 0.5
SHARE = 0.5


@dataclass(frozen=True)
class Target:
    address: str
    model: str
    cpu: int  # where the generator runs


@dataclass(frozen=True)
class Loaded:
    """One run of the generator. `window_ns` is when its window began, as far as the end of its first second
    tells.
    """

    report: LoadReport
    window_ns: int

    @property
    def p99_us(self) -> float:
        assert self.report.latency_us is not None, "it was checked"
        return self.report.latency_us.p99

    @property
    def wrong(self) -> list[str]:
        return flaws(self.report, None)

    @property
    def failed(self) -> int:
        """Requests that did not end OK, or never began."""
        report = self.report
        never = report.schedule.never_started if report.schedule is not None else 0
        return (
            sum(report.outcomes.values()) - report.outcomes.get("OK", 0) + report.warm_up.unexpected + never
        )


def find_peak(target: Target) -> float:
    """Return requests a second of a closed loop. Blocks. Raises LoadFailed."""
    config = LoadConfig(
        target=target.address,
        mode=ClosedLoop(STREAMS),
        connections=CONNECTIONS,
        warm_up_s=WARM_UP_S,
        duration_s=PEAK_SECONDS,
    )
    return _run(target, config).report.requests_per_s


def load_for(target: Target, rate_per_s: float, seconds: float) -> Loaded:
    """Blocks. Raises LoadFailed."""
    config = LoadConfig(
        target=target.address,
        mode=OpenLoop(rate_per_s, MAX_IN_FLIGHT),
        connections=CONNECTIONS,
        warm_up_s=WARM_UP_S,
        duration_s=seconds,
    )
    return _run(target, config)


def _run(target: Target, config: LoadConfig) -> Loaded:
    window_ns = time.monotonic_ns()

    def on_second(second: Second) -> None:
        nonlocal window_ns
        if second.second == 0:
            window_ns = time.monotonic_ns() - 1_000_000_000

    try:
        with kept_on(target.cpu):
            report = run_load(config, [request(target.model)], on_second).report
    except (LoadUnavailable, ConnectionError, ValueError) as error:
        raise LoadFailed(f"native load generator: {error}") from error
    if report.latency_us is None:
        raise LoadFailed("native load generator: no answer is OK")
    return Loaded(report, window_ns)


@dataclass
class Background:
    """`async with` loads until it is left: slice after slice, each checked. `wrong` is complete then."""

    target: Target
    rate_per_s: float
    wrong: list[str] = field(default_factory=list)
    slices: list[Loaded] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._load(), name="load")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.slices)

    @property
    def requests(self) -> int:
        return sum(each.report.sent_in_all for each in self.slices)

    async def _load(self) -> None:
        while not self._stop.is_set():
            try:
                loaded = await asyncio.to_thread(load_for, self.target, self.rate_per_s, SLICE_SECONDS)
            except LoadFailed as error:
                self.wrong.append(str(error))
                return
            self.slices.append(loaded)
            self.wrong += loaded.wrong
