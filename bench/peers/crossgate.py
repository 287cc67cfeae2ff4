"""Crossgate itself. Only this file knows how it is started."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bench.endpoint import Endpoint
from bench.peers.process import Process

if TYPE_CHECKING:
    from bench.peers.server import Counts, Placement
    from bench.samples import Work
    from bench.scenario import Model


class CrossgateProcess:
    """`crossgate serve` over a folder of models; ready when the constructor returns. `frontend` None: its
    default."""

    def __init__(
        self,
        name: str,
        models: Path,
        slots: tuple[str, ...],
        folder: Path,
        frontend: str | None = None,
        cpus: str = "",
    ) -> None:
        command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", "--models", str(models)]
        for slot in slots:
            command += ["--slot", slot]
        command += ["--grpc-port", "0", "--http-port", "0"]
        if cpus:
            command += ["--cpus", cpus]
        if frontend is not None:
            command += ["--frontend", frontend]
        self._process = Process(name, command, folder)
        try:
            line = self._process.wait_line("ready ", timeout_s=60)
        except BaseException:
            self._process.stop()
            raise
        words = dict(word.partition("=")[::2] for word in line.split()[1:])  # {name: value}
        self.address = words["grpc"]
        self.pid = self._process.pid

    def pids(self) -> frozenset[int]:
        return self._process.pids()

    def stop(self) -> None:
        self._process.stop()


class Crossgate:
    echoes = False

    def __init__(self, frontend: str = "") -> None:
        self.name = f"crossgate:{frontend}" if frontend else "crossgate"
        self._frontend = frontend or None
        self._model = ""
        self._process: CrossgateProcess | None = None

    @property
    def description(self) -> str:
        frontend = self._frontend or "default"
        where = "gateway free, off the model's CPU where compute-bound"
        return f"Crossgate, front end {frontend}; one worker process, ONNX Runtime, pinned; {where}"

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
        target = work.scenario.target
        compute_bound = target is not None and target.relative_to == "onnxruntime"
        cpus = str(placement.load_cpu) if compute_bound else ""
        self._process = CrossgateProcess(self.name, work.models, (slot,), folder, self._frontend, cpus)

    def pids(self) -> frozenset[int]:
        return self._running.pids()

    def counts(self) -> Counts | None:
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
