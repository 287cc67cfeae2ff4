"""ONNX Runtime in process, without any server, at the batch size that gives most items per second.

For mixed lengths each length runs unpadded in batches of its own, at its own best size; the rate is that of
equal numbers of each length, which is what h2load sends to the servers. No padding server can fully reach it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.cpu import memory
from bench.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.peers.server import Placement
    from bench.samples import Work

PROGRAM = Path(__file__).parents[1] / "programs" / "raw_onnxruntime.py"


@dataclass(frozen=True)
class Timing:
    """Many runs of one batch size."""

    items: int
    wall_s: float
    cpu_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Best:
    batch: int
    items_per_s: float


def batch_sizes(limit: int) -> list[int]:
    """Powers of two up to `limit`, and `limit`."""
    return [*(size for size in (2**power for power in range(limit.bit_length())) if size < limit), limit]


def combine(timings: Sequence[Timing], bests: Sequence[Best], pss_bytes: int, rss_bytes: int) -> Figures:
    """Of equal numbers of each length: time and CPU per item add up. Latencies are those of the slowest
    length's run."""
    lengths = len(timings)
    seconds_of_one_each = sum(timing.wall_s / timing.items for timing in timings)
    cpu_of_one_each_s = sum(timing.cpu_s / timing.items for timing in timings)
    return Figures(
        requests=sum(timing.items for timing in timings),
        wall_s=sum(timing.wall_s for timing in timings),
        requests_per_s=lengths / seconds_of_one_each,
        p50_us=max(timing.p50_us for timing in timings),
        p99_us=max(timing.p99_us for timing in timings),
        cpu_us=cpu_of_one_each_s / lengths * 1e6,
        pss_bytes=pss_bytes,
        rss_bytes=rss_bytes,
        mean_batch=sum(best.batch for best in bests) / lengths,
        details={"best_batches": [best.batch for best in bests]},
    )


class RawOnnxRuntime:
    """A subject by itself: it has no address and no load generator."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._bests: list[Best] = []
        self._seconds = 0.0
        self._process: subprocess.Popen[str] | None = None

    @property
    def description(self) -> str:
        return (
            "raw ONNX Runtime in process, no server, at its best batch, pinned like the servers' models; "
            "its latency is that of one whole batch"
        )

    @property
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("onnxruntime", "numpy")}

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        files = []
        for body in work.bodies:
            path = folder / f"inputs-{body.length}.npz"
            np.savez(path, allow_pickle=False, **body.inputs)
            files.append(str(path))
        model = work.models / work.scenario.model.name / "1" / "model.onnx"
        command = [sys.executable, "-P", str(PROGRAM), str(model)]
        command += [str(placement.model_cpu), str(placement.threads), *files]
        self._lengths = len(files)
        # A batch cannot be larger than what is in flight.
        self._sizes = batch_sizes(min(work.scenario.model.max_batch_size, work.scenario.in_flight))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def warm_up(self, seconds: float) -> None:
        """Tries all batch sizes for each length, in about the time of a round."""
        self._seconds = seconds / self._lengths
        share_s = self._seconds / len(self._sizes)
        self._bests = []
        for index in range(self._lengths):
            tried = []
            for size in self._sizes:
                timing = self._time(index, size, share_s)
                tried.append(Best(size, timing.items / timing.wall_s))
            self._bests.append(max(tried, key=lambda best: best.items_per_s))

    def measure(self) -> Figures:
        timings = [self._time(index, best.batch, self._seconds) for index, best in enumerate(self._bests)]
        assert self._process is not None
        used = memory([self._process.pid])
        return combine(timings, self._bests, used.pss_bytes, used.rss_bytes)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _time(self, index: int, batch: int, seconds: float) -> Timing:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"inputs": index, "batch": batch, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        return Timing(**json.loads(self._read()))

    def _read(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError("ONNX Runtime's process ended")
        return line
