"""A server under load as a subject."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from bench.cpu import cpu_seconds, memory, used_between
from bench.endpoint import Endpoint, describe
from bench.figures import Check, Figures
from bench.load import FRAME_HEADER_BYTES, Job, LoadFailed
from bench.sampler import Sampler, check_all
from bench.validity import Evidence, shortened, void_reasons

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.load import LoadGenerator
    from bench.peers.server import Counts, Placement, Server
    from bench.samples import Work

COUNTS_SETTLE_S = 3.0
COUNTS_POLL_S = 0.05
CALIBRATION_SHARE = 0.3  # the calibration is long enough once it took this share of a round


class LoadedServer:
    """Each round sends the same number of requests for every length, so that all do equal work; in an open
    loop, it lasts equally long. With a second generator each round is repeated with that one, as a check.
    """

    def __init__(self, server: Server, generators: Sequence[LoadGenerator]) -> None:
        self._server = server
        self._generator = generators[0]
        self._checking = generators[1] if len(generators) > 1 else None
        self._answer_bytes: list[int] = []  # by body
        self._peak_per_s = 0.0

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def description(self) -> str:
        return self._server.description

    @property
    def versions(self) -> dict[str, str]:
        return self._server.versions

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        self._work = work
        if work.scenario.open_share is not None and not self._generator.has_open_loop:
            raise LoadFailed(f"{self._generator.name} has no open loop")
        self._server.start(work, placement, folder)
        self._job = Job(
            address=self._server.address,
            bodies=work.bodies,
            folder=folder,
            cpu=placement.load_cpu,
            connections=work.scenario.connections,
            streams=work.scenario.streams,
        )

    def stop(self) -> None:
        self._server.stop()

    def warm_up(self, seconds: float) -> None:
        """Finds out how much work fills `seconds`, or for an open loop the peak. Raises LoadFailed or
        grpc.RpcError."""
        with Endpoint(self._server.address) as endpoint:
            self._answer_bytes = [
                len(endpoint.infer(body.request)) + FRAME_HEADER_BYTES for body in self._work.bodies
            ]
        share = self._work.scenario.open_share
        least = self._job.connections * self._job.streams
        long_enough_s = (CALIBRATION_SHARE if share is None else 1.0) * seconds
        requests_each = 2 * least
        while True:
            loaded = self._generator.run(replace(self._job, requests_each=requests_each), None)
            enough = max(least, round(requests_each / loaded.wall_s * seconds))
            if loaded.wall_s >= long_enough_s:
                break
            requests_each = max(2 * requests_each, round(enough * CALIBRATION_SHARE))
        self._peak_per_s = loaded.requests_per_s
        if share is None:
            self._job = replace(self._job, requests_each=enough)
        else:
            self._job = replace(self._job, rate_per_s=share * loaded.requests_per_s, seconds=seconds)

    def measure(self) -> Figures:
        """One round. What fails voids the round instead of raising."""
        try:
            figures = self._measure(self._generator)
            is_open = self._job.rate_per_s is not None
            if self._checking is None or (is_open and not self._checking.has_open_loop):
                return figures
            other = self._measure(self._checking)
            check = Check(
                self._checking.name,
                other.requests_per_s,
                other.p50_us,
                other.p99_us,
                other.cpu_us,
                other.generator_cpu_us,
            )
            void = shortened([*figures.void, *(f"{self._checking.name}: {why}" for why in other.void)])
            return replace(figures, check=check, void=void)
        except (LoadFailed, grpc.RpcError) as error:
            return Figures(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, void=(describe(error),))

    def _measure(self, generator: LoadGenerator) -> Figures:
        server, work = self._server, self._work
        reasons = self._wrong_answers()
        before = self._settled_counts(at_least=0)
        cpu_before = cpu_seconds(server.pids())
        with Sampler(server, work) as sampler:
            loaded = generator.run(self._job, self._answer_bytes)
        pids = server.pids()
        cpu_s = used_between(cpu_before, cpu_seconds(pids))
        used = memory(pids)
        sent = loaded.sent + sampler.report.sent
        after = self._settled_counts(at_least=sent + (before.requests if before else 0))
        reasons += void_reasons(Evidence(loaded, sampler.report, before, after))
        reasons += self._wrong_answers()
        details: dict[str, object] = {"samples": sampler.report.sent, "generator": generator.name}
        if self._job.rate_per_s is not None:
            details |= {"peak_requests_per_s": self._peak_per_s, "rate_per_s": self._job.rate_per_s}
        return Figures(
            requests=sent,
            wall_s=loaded.wall_s,
            requests_per_s=loaded.requests_per_s,
            p50_us=loaded.p50_us,
            p99_us=loaded.p99_us,
            cpu_us=sum(cpu_s) / sent * 1e6,
            cpu_us_by_process=tuple(one / sent * 1e6 for one in cpu_s),
            pss_bytes=used.pss_bytes,
            rss_bytes=used.rss_bytes,
            mean_batch=_mean_batch(before, after),
            generator_cpu_us=loaded.cpu_us,
            void=shortened(reasons),
            details=details,
        )

    def _wrong_answers(self) -> list[str]:
        with Endpoint(self._server.address) as endpoint:
            return check_all(endpoint, self._work.samples, self._work, self._server)

    def _settled_counts(self, at_least: int) -> Counts | None:
        """Servers may count a request just after they answered it: waits until two readings agree and hold
        `at_least` requests, but not long."""
        deadline = time.monotonic() + COUNTS_SETTLE_S
        counts = self._server.counts()
        while counts is not None and time.monotonic() < deadline:
            previous = counts
            time.sleep(COUNTS_POLL_S)
            counts = self._server.counts()
            if counts is not None and counts == previous and counts.requests >= at_least:
                break
        return counts


def _mean_batch(before: Counts | None, after: Counts | None) -> float | None:
    if before is None or after is None or after.batches == before.batches:
        return None
    return (after.requests - before.requests) / (after.batches - before.batches)
