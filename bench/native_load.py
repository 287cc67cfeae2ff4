"""The native load generator, in a thread of this process that is kept on the load's CPU."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.load import FRAME_HEADER_BYTES, Loaded, LoadFailed
from crossgate.cli.load import (
    ClosedLoop,
    LoadConfig,
    LoadUnavailable,
    OpenLoop,
    check_load_available,
    run_load,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.load import Job
    from crossgate.cli.load import LoadReport

MAX_IN_FLIGHT = 512  # of an open loop; half of Crossgate's queue, so a stall is late answers and not refusals
OPEN_WARM_UP_S = 0.5


class NativeLoad:
    """One generator sends all bodies in rotation, so that each is sent equally often."""

    name = "native"
    has_open_loop = True

    @property
    def version(self) -> str:
        return "native generator of this commit"

    def describe(self, job: Job) -> str:
        in_flight = f"{job.connections} connections x {job.streams * len(job.bodies)} streams"
        if job.rate_per_s is not None:
            return f"native, open loop, {job.connections} connections, {job.rate_per_s:,.0f} requests/s"
        return f"native, closed loop, {in_flight}"

    def run(self, job: Job, answer_bytes: Sequence[int] | None) -> Loaded:
        closed = ClosedLoop(job.streams * len(job.bodies))
        if job.rate_per_s is None:
            config = LoadConfig(
                target=job.address, mode=closed, connections=job.connections, requests=job.requests
            )
        else:
            config = LoadConfig(
                target=job.address,
                mode=OpenLoop(job.rate_per_s, MAX_IN_FLIGHT),
                connections=job.connections,
                warm_up_s=OPEN_WARM_UP_S,
                duration_s=job.seconds,
            )
        try:
            with kept_on(job.cpu):
                report = run_load(config, [body.request for body in job.bodies]).report
        except (LoadUnavailable, ConnectionError, ValueError) as error:
            raise LoadFailed(f"native load generator: {error}") from error
        if report.latency_us is None:
            raise LoadFailed(f"native load generator: no answer is OK: {_outcomes(report)}")
        return Loaded(
            sent=report.sent_in_all,
            wall_s=report.window_s,
            requests_per_s=report.requests_per_s,
            p50_us=report.latency_us.p50,
            p99_us=report.latency_us.p99,
            cpu_us=report.generator.cpu_us_per_request,
            wrong=tuple(flaws(report, answer_bytes)),
        )


def flaws(report: LoadReport, answer_bytes: Sequence[int] | None) -> list[str]:
    """Why a report does not count; `answer_bytes` are framed lengths of right answers, one for each body."""
    found = []
    if report.outcomes.keys() != {"OK"} or report.unexpected or report.warm_up.unexpected:
        found.append(f"native load generator: {_outcomes(report)}")
    if report.connections.lost:
        found.append(f"{report.connections.lost} connections were lost: {report.connections.last_failure}")
    if report.schedule is not None and report.schedule.never_started:
        found.append(f"{report.schedule.never_started} requests were due and could not be started")
    for body, framed in zip(report.bodies, answer_bytes or (), strict=False):
        wanted = framed - FRAME_HEADER_BYTES
        if {body.answer_bytes_min, body.answer_bytes_max} != {wanted}:
            found.append(
                f"answers of {body.answer_bytes_min} to {body.answer_bytes_max} bytes instead of {wanted}"
            )
    return found


def _outcomes(report: LoadReport) -> str:
    counted = ", ".join(f"{count} {name}" for name, count in report.outcomes.items())
    words = "; ".join(f"{error.outcome}: {error.message}" for error in report.errors[:2])
    return f"{counted} ({words})" if words else counted


def is_available() -> bool:
    try:
        check_load_available()
    except LoadUnavailable:
        return False
    return True


@contextmanager
def kept_on(cpu: int) -> Iterator[None]:
    """This thread, and those that it starts meanwhile, run on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
