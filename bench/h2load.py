"""h2load in a closed loop: its command, its summary and its log of single requests.

h2load's summary has no percentiles, so they come from its `--log-file`. It counts an answer with a gRPC error
as succeeded (`:status` is 200), but such an answer carries no data: the exact number of data bytes gives it
away. It posts one body, so for mixed lengths one h2load per length runs at the same time.
"""

from __future__ import annotations

import re
import resource
import subprocess
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.endpoint import INFER
from bench.load import Loaded, LoadFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bench.load import Job

HEADERS = ("content-type: application/grpc", "te: trailers")
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Run:
    """One h2load: `connections` x `streams` requests in flight until `requests` are answered."""

    address: str
    body: Path
    log: Path
    requests: int
    connections: int
    streams: int
    cpu: int

    def command(self) -> list[str]:
        command = ["taskset", "-c", str(self.cpu), "h2load", "-t", "1", "-n", str(self.requests)]
        command += ["-c", str(self.connections), "-m", str(self.streams)]
        for header in HEADERS:
            command += ["-H", header]
        return [*command, "-d", str(self.body), f"--log-file={self.log}", f"http://{self.address}{INFER}"]


@dataclass(frozen=True)
class Summary:
    """h2load's own counts. `data_bytes` are the payloads of all DATA frames received."""

    requests: int
    done: int
    succeeded: int
    failed: int
    errored: int
    timed_out: int
    status_2xx: int
    data_bytes: int


@dataclass(frozen=True)
class Log:
    """One row per finished request: start in us since the epoch, HTTP status (-1: the stream failed),
    duration in us."""

    start_us: NDArray[np.int64]
    status: NDArray[np.int64]
    duration_us: NDArray[np.int64]


def parse_summary(text: str) -> Summary:
    """Raises LoadFailed."""
    requests = re.search(
        r"^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, "
        r"(\d+) timeout",
        text,
        re.MULTILINE,
    )
    status = re.search(r"^status codes: (\d+) 2xx", text, re.MULTILINE)
    traffic = re.search(r"^traffic: .*, \S+ \((\d+)\) data", text, re.MULTILINE)
    if requests is None or status is None or traffic is None:
        raise LoadFailed(f"no summary from h2load: {text.strip()[-300:]!r}")
    total, done, succeeded, failed, errored, timed_out = (int(group) for group in requests.groups())
    return Summary(
        total, done, succeeded, failed, errored, timed_out, int(status.group(1)), int(traffic.group(1))
    )


def parse_log(text: str) -> Log:
    columns = np.array([line.split("\t")[:3] for line in text.splitlines()], dtype=np.int64).reshape(-1, 3)
    return Log(columns[:, 0], columns[:, 1], columns[:, 2])


def flaws(summary: Summary, answer_bytes: int) -> list[str]:
    """Why a summary does not count; `answer_bytes` is the framed length of one right answer."""
    found = []
    if not summary.requests == summary.done == summary.succeeded == summary.status_2xx:
        found.append(
            f"h2load: {summary.succeeded} of {summary.requests} succeeded, {summary.failed} failed, "
            f"{summary.errored} errored, {summary.timed_out} timed out"
        )
    wanted = summary.done * answer_bytes
    if summary.data_bytes != wanted:
        found.append(
            f"{summary.data_bytes} bytes of answers instead of {wanted} "
            f"({summary.done} x {answer_bytes}): some answers are errors or of another length"
        )
    return found


def wall_seconds(logs: Sequence[Log]) -> float:
    """From the first request's start to the last one's end, over all h2loads."""
    first = min(int(log.start_us.min()) for log in logs)
    last = max(int((log.start_us + log.duration_us).max()) for log in logs)
    return (last - first) / 1e6


class H2load:
    """Makes files in the folder of each job and leaves none of its logs."""

    name = "h2load"
    has_open_loop = False

    def __init__(self) -> None:
        self._numbers = count()

    @property
    def version(self) -> str:
        answer = subprocess.run(["h2load", "--version"], check=True, capture_output=True, text=True)
        return answer.stdout.strip()

    def describe(self, job: Job) -> str:
        run = Run("ADDRESS", Path("BODY"), Path("LOG"), 0, job.connections, job.streams, job.cpu)
        words = (f"'{word}'" if " " in word else word for word in run.command())
        return " ".join(words).replace("-n 0", "-n REQUESTS")

    def run(self, job: Job, answer_bytes: Sequence[int] | None) -> Loaded:
        if job.rate_per_s is not None:
            raise LoadFailed("h2load has no open loop with Poisson arrivals")
        runs = [self._prepare(job, at) for at in range(len(job.bodies))]
        cpu_before_s = _children_cpu_s()
        try:
            outputs = _run_all(runs)
            logs = [parse_log(run.log.read_text()) for run in runs]
        finally:
            for run in runs:
                run.log.unlink(missing_ok=True)
        cpu_s = _children_cpu_s() - cpu_before_s
        summaries = [parse_summary(output) for output in outputs]
        durations_us = np.concatenate([log.duration_us for log in logs])
        if not durations_us.size:
            raise LoadFailed("h2load has no answer")
        p50_us, p99_us = np.percentile(durations_us, [50, 99])
        wall_s = wall_seconds(logs)
        sent = sum(summary.requests for summary in summaries)
        pairs = zip(summaries, answer_bytes or (), strict=False)
        return Loaded(
            sent=sent,
            wall_s=wall_s,
            requests_per_s=durations_us.size / wall_s,
            p50_us=float(p50_us),
            p99_us=float(p99_us),
            cpu_us=cpu_s / sent * 1e6,
            wrong=tuple(flaw for summary, size in pairs for flaw in flaws(summary, size)),
        )

    def _prepare(self, job: Job, at: int) -> Run:
        body = job.folder / f"body-{at}"
        if not body.exists():
            body.write_bytes(job.bodies[at].framed())
        log = job.folder / f"log-{next(self._numbers)}-{at}"
        return Run(job.address, body, log, job.requests_each, job.connections, job.streams, job.cpu)


def _run_all(runs: Sequence[Run]) -> list[str]:
    """Runs all of them at the same time. Raises LoadFailed; no h2load is left behind in any case."""
    running = [
        subprocess.Popen(run.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for run in runs
    ]
    deadline = time.monotonic() + TIMEOUT_S
    try:
        return [process.communicate(timeout=max(0.0, deadline - time.monotonic()))[0] for process in running]
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"h2load not finished after {TIMEOUT_S:g} s") from error
    finally:
        for process in running:
            process.kill()
            process.wait()


def _children_cpu_s() -> float:
    """Of children that have ended; servers have not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
