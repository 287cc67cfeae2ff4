"""The load: h2load in a closed loop, its summary and its log of single requests.

h2load's summary has no percentiles, so they come from its `--log-file`. It counts an answer with a gRPC error
as succeeded (`:status` is 200), but such an answer carries no data: the exact number of data bytes gives it
away.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.endpoint import INFER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HEADERS = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True)
class Load:
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


@dataclass(frozen=True)
class Loaded:
    summary: Summary
    log: Log


class LoadFailed(Exception):
    """h2load did not finish or printed no summary."""


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


def run_all(loads: Sequence[Load], timeout_s: float) -> list[Loaded]:
    """Runs all of them at the same time. Raises LoadFailed; no h2load is left behind in any case."""
    running = [
        subprocess.Popen(load.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for load in loads
    ]
    deadline = time.monotonic() + timeout_s
    try:
        outputs = [
            process.communicate(timeout=max(0.0, deadline - time.monotonic()))[0] for process in running
        ]
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"h2load not finished after {timeout_s:g} s") from error
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [
        Loaded(parse_summary(output), parse_log(load.log.read_text()))
        for load, output in zip(loads, outputs, strict=True)
    ]


def wall_seconds(loaded: Sequence[Loaded]) -> float:
    """From the first request's start to the last one's end, over all h2loads."""
    first = min(int(one.log.start_us.min()) for one in loaded)
    last = max(int((one.log.start_us + one.log.duration_us).max()) for one in loaded)
    return (last - first) / 1e6


def h2load_version() -> str:
    answer = subprocess.run(["h2load", "--version"], check=True, capture_output=True, text=True)
    return answer.stdout.strip()
