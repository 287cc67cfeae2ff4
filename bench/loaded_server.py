"""A server under h2load as a subject."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import grpc
import numpy as np

from bench.cpu import cpu_seconds, memory, used_between
from bench.endpoint import Endpoint, describe
from bench.figures import Figures
from bench.load import Load, LoadFailed, run_all, wall_seconds
from bench.sampler import Sampler, check_all
from bench.validity import Evidence, shortened, void_reasons

if TYPE_CHECKING:
    from pathlib import Path

    from bench.load import Loaded
    from bench.peers.server import Counts, Placement, Server
    from bench.samples import Work

FRAME_HEADER_BYTES = 5  # gRPC's flag and length before each message
COUNTS_SETTLE_S = 3.0
COUNTS_POLL_S = 0.05
TIMEOUT_S = 120.0
CALIBRATION_SHARE = 0.3  # the calibration is long enough once it took this share of a round


class LoadedServer:
    """Each round sends the same number of requests for every length, so that all do equal work."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._requests_each = 0  # per h2load
        self._answer_bytes: list[int] = []  # per h2load
        self._loads_run = 0

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
        self._placement = placement
        self._folder = folder
        for body in work.bodies:
            (folder / f"body-{body.length}").write_bytes(body.framed())
        self._server.start(work, placement, folder)

    def stop(self) -> None:
        self._server.stop()

    def warm_up(self, seconds: float) -> None:
        """Raises LoadFailed or grpc.RpcError."""
        with Endpoint(self._server.address) as endpoint:
            self._answer_bytes = [
                len(endpoint.infer(body.request)) + FRAME_HEADER_BYTES for body in self._work.bodies
            ]
        scenario = self._work.scenario
        least = scenario.connections * scenario.streams
        requests = 2 * least
        while True:
            wall_s = wall_seconds(self._load(requests))
            self._requests_each = max(least, round(requests / wall_s * seconds))
            if wall_s >= CALIBRATION_SHARE * seconds:
                return
            requests = max(2 * requests, round(self._requests_each * CALIBRATION_SHARE))

    def measure(self) -> Figures:
        """One round. What fails voids the round instead of raising."""
        try:
            return self._measure()
        except (LoadFailed, grpc.RpcError) as error:
            return Figures(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, void=(describe(error),))

    def _measure(self) -> Figures:
        server, work = self._server, self._work
        reasons = self._wrong_answers()
        before = self._settled_counts(at_least=0)
        cpu_before = cpu_seconds(server.pids())
        with Sampler(server.address, work, server.echoes) as sampler:
            loaded = self._load(self._requests_each)
        pids = server.pids()
        cpu_s = used_between(cpu_before, cpu_seconds(pids))
        used = memory(pids)
        sent = sum(one.summary.requests for one in loaded) + sampler.report.sent
        after = self._settled_counts(at_least=sent + (before.requests if before else 0))
        summaries = [one.summary for one in loaded]
        reasons += void_reasons(Evidence(summaries, self._answer_bytes, sampler.report, before, after))
        reasons += self._wrong_answers()
        durations_us = np.concatenate([one.log.duration_us for one in loaded])
        p50_us, p99_us = np.percentile(durations_us, [50, 99])
        wall_s = wall_seconds(loaded)
        return Figures(
            requests=sent,
            wall_s=wall_s,
            requests_per_s=len(durations_us) / wall_s,
            p50_us=float(p50_us),
            p99_us=float(p99_us),
            cpu_us=sum(cpu_s) / sent * 1e6,
            cpu_us_by_process=tuple(one / sent * 1e6 for one in cpu_s),
            pss_bytes=used.pss_bytes,
            rss_bytes=used.rss_bytes,
            mean_batch=_mean_batch(before, after),
            void=shortened(reasons),
            details={"samples": sampler.report.sent},
        )

    def _load(self, requests: int) -> list[Loaded]:
        scenario = self._work.scenario
        self._loads_run += 1
        loads = [
            Load(
                address=self._server.address,
                body=self._folder / f"body-{body.length}",
                log=self._folder / f"log-{self._loads_run}-{body.length}",
                requests=requests,
                connections=scenario.connections,
                streams=scenario.streams,
                cpu=self._placement.load_cpu,
            )
            for body in self._work.bodies
        ]
        try:
            return run_all(loads, TIMEOUT_S)
        finally:
            for load in loads:
                load.log.unlink(missing_ok=True)

    def _wrong_answers(self) -> list[str]:
        with Endpoint(self._server.address) as endpoint:
            return check_all(endpoint, self._work.samples, self._work, self._server.echoes)

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
