"""Crossgate itself. Only this file knows how it is started."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.endpoint import Endpoint
from bench.peers.process import Process
from bench.peers.server import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.peers.server import Placement
    from bench.samples import Work
    from bench.scenario import Model


@dataclass(frozen=True)
class Mode:
    """`frontend` empty: its default."""

    frontend: str = ""
    processes: int = 1

    @staticmethod
    def parse(text: str) -> Mode:
        """Reads FRONTEND or FRONTEND-xPROCESSES, such as native-x2."""
        frontend, separator, processes = text.partition("-x")
        return Mode(frontend, int(processes) if separator else 1)


class CrossgateProcess:
    """`crossgate serve` over a folder of models; ready when the constructor returns."""

    def __init__(
        self,
        name: str,
        models: Path,
        slots: tuple[str, ...],
        folder: Path,
        mode: Mode,
        cpus: str = "",
    ) -> None:
        command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", "--models", str(models)]
        for slot in slots:
            command += ["--slot", slot]
        command += ["--grpc-port", "0", "--http-port", "0"]
        if cpus:
            command += ["--cpus", cpus]
        if mode.frontend:
            command += ["--frontend", mode.frontend]
        if mode.processes > 1:
            command += ["--processes", str(mode.processes)]
        self._process = Process(name, command, folder)
        try:
            line = self._process.wait_line("ready ", timeout_s=60)
        except BaseException:
            self._process.stop()
            raise
        words = dict(word.partition("=")[::2] for word in line.split()[1:])  # {name: value}
        self.address = words["grpc"]
        self.http = words["http"].split(",")  # one for each gateway process
        self.pid = self._process.pid

    def pids(self) -> frozenset[int]:
        return self._process.pids()

    def stop(self) -> None:
        self._process.stop()


class Crossgate:
    def __init__(self, mode: str = "") -> None:
        self.name = f"crossgate:{mode}" if mode else "crossgate"
        self._mode = Mode.parse(mode)
        self._model = ""
        self._process: CrossgateProcess | None = None

    @property
    def description(self) -> str:
        frontend = self._mode.frontend or "default"
        processes = f", {self._mode.processes} gateway processes" if self._mode.processes > 1 else ""
        where = "gateway free, off the model's CPU where compute-bound"
        return (
            f"Crossgate, front end {frontend}{processes}; one worker process, ONNX Runtime, pinned; {where}"
        )

    @property
    def versions(self) -> dict[str, str]:
        packages = ("crossgate", "grpcio", "onnxruntime", "numpy")
        return {**{name: version(name) for name in packages}, "commit": commit()}

    @property
    def address(self) -> str:
        return self._running.address

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        self._model = work.scenario.model.name
        write_document(work.scenario.model, work.models, placement.threads)
        slot = f"cpu:{placement.model_cpu}"
        # where raw ONNX Runtime's throughput is the measure, the gateway keeps off the model's CPU, as an
        # operator would have it
        compute_bound = any(target.metric == "share_of_raw" for target in work.scenario.targets)
        cpus = str(placement.load_cpu) if compute_bound else ""
        self._process = CrossgateProcess(self.name, work.models, (slot,), folder, self._mode, cpus)

    def pids(self) -> frozenset[int]:
        return self._running.pids()

    def fixed_answer(self, request: bytes) -> bytes | None:
        return None

    def counts(self) -> Counts | None:
        if self._mode.processes > 1:  # whichever takes the call knows only its own
            return sum_counts([metrics(address) for address in self._running.http], self._model)
        with Endpoint(self.address) as endpoint:
            return endpoint.counts(self._model)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    @property
    def _running(self) -> CrossgateProcess:
        assert self._process is not None
        return self._process


def metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        text: str = response.read().decode()
    return text


def sum_counts(expositions: Iterable[str], model: str) -> Counts:
    """Of all gateway processes together, from their metrics in Prometheus' text format."""
    sums = {"crossgate_rows_total": 0.0, "crossgate_batch_size_count": 0.0, "failures": 0.0}
    for text in expositions:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("model") != model:
                    continue
                if sample.name in sums:
                    sums[sample.name] += sample.value
                elif sample.name == "crossgate_requests_total" and sample.labels["outcome"] != "ok":
                    sums["failures"] += sample.value
    requests, batches, failures = (int(value) for value in sums.values())
    return Counts(requests, batches, failures)


def write_document(model: Model, models: Path, threads: int, count: int = 1) -> None:
    """Writes <models>/<model>/model.yaml: batching, padding and `count` runs at once, spread over the CPU
    slots.
    """
    batching: dict[str, object] = {"max_batch_size": model.max_batch_size, "batchable": True}
    if model.buckets:
        batching["pad"] = {
            spec.name: {"axis": 1, "value": 0, "buckets": list(model.buckets)} for spec in model.inputs
        }
    instance = {"runtime": "onnxruntime", "device": "cpu", "count": count, "threads": threads}
    document = {"batching": batching, "instances": [instance]}
    (models / model.name / "model.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def commit() -> str:
    """The commit of this source tree, with a + if files differ from it; unknown outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
        )
        changes = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
