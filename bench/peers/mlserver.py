"""MLServer with a runtime of ours that calls ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bench.endpoint import Endpoint
from bench.environment import Environment
from bench.peers.process import Process, free_port

if TYPE_CHECKING:
    from bench.peers.server import Counts, Placement
    from bench.samples import Work

# Its parallel workers do not start with uvloop 0.22 and later; grpcio 1.84 made its accept loop slower.
ENVIRONMENT = Environment("mlserver", ("mlserver==1.7.1", "uvloop<0.22", "grpcio<1.84"))
PROGRAM = Path(__file__).parents[1] / "programs" / "mlserver_model.py"
MAX_BATCH_TIME_S = 0.001


class MlServer:
    """`mode` empty: the model runs in the server's own process, which is cheaper for small models and cannot
    be pinned apart from the transport. `workers`: MLServer's default, one inference worker process, pinned.
    """

    def __init__(self, mode: str = "") -> None:
        self.name = f"mlserver:{mode}" if mode else "mlserver"
        self.address = ""
        self._workers = 1 if mode == "workers" else 0
        self._version = ""
        self._process: Process | None = None

    @property
    def description(self) -> str:
        where = "one inference worker, pinned" if self._workers else "model in the server's process, free"
        return (
            f"MLServer, custom runtime calling ONNX Runtime, {where}; adaptive batching "
            f"({MAX_BATCH_TIME_S * 1e3:g} ms), off for mixed lengths, which it cannot merge; "
            "has no statistics RPC"
        )

    @property
    def versions(self) -> dict[str, str]:
        packages = ("mlserver", "onnxruntime", "grpcio", "uvloop", "numpy")
        return {"server": self._version, **ENVIRONMENT.versions(*packages)}

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        python = ENVIRONMENT.python
        model = work.scenario.model
        home = folder / self.name.replace(":", "-")
        (home / model.name).mkdir(parents=True)
        shutil.copy(PROGRAM, home / model.name / PROGRAM.name)
        ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
        settings = {"host": "127.0.0.1", "debug": False, "parallel_workers": self._workers, **ports}
        settings |= {"metrics_dir": str(home / "metrics"), "environments_dir": str(home / "environments")}
        (home / "settings.json").write_text(json.dumps(settings))
        extra = {
            "cpu": placement.model_cpu if self._workers else None,
            "threads": placement.threads,
            "path": str(work.models / model.name / "1" / "model.onnx"),
        }
        batched = not model.buckets
        model_settings = {
            "name": model.name,
            "implementation": f"{PROGRAM.stem}.OnnxModel",
            "max_batch_size": model.max_batch_size if batched else 0,
            "max_batch_time": MAX_BATCH_TIME_S if batched else 0,
            "parameters": {"version": "1", "extra": extra},
        }
        (home / model.name / "model-settings.json").write_text(json.dumps(model_settings))
        command = [str(python.parent / "mlserver"), "start", str(home)]
        self._process = Process(self.name, command, folder, {"PYTHONPATH": ""})
        self.address = f"127.0.0.1:{ports['grpc_port']}"
        with Endpoint(self.address) as endpoint:
            self._process.wait_until(lambda: endpoint.is_ready(model.name), timeout_s=60)
            self._version = endpoint.server_version()

    def pids(self) -> frozenset[int]:
        assert self._process is not None
        return self._process.pids()

    def fixed_answer(self, request: bytes) -> bytes | None:
        return None

    def counts(self) -> Counts | None:
        return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
