"""Triton with its *Python back end*, which calls ONNX Runtime: the server that the nvidia-pytriton wheel
carries.

Its C++ ONNX Runtime back end is in no package; it costs about half of this per request.
"""

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
    from bench.scenario import InputSpec, Model, OutputSpec

ENVIRONMENT = Environment("triton", ("nvidia-pytriton==0.7.0", "numpy<2"))
PROGRAM = Path(__file__).parents[1] / "programs" / "triton_model.py"


class TritonPython:
    name = "triton-python"

    def __init__(self) -> None:
        self.address = ""
        self._version = ""
        self._model = ""
        self._process: Process | None = None

    @property
    def description(self) -> str:
        return (
            "Triton, Python back end calling ONNX Runtime, dynamic batching, one instance; model process "
            "pinned, server free; ragged lengths are grouped by the same padding buckets as Crossgate's"
        )

    @property
    def versions(self) -> dict[str, str]:
        return {"server": self._version, **ENVIRONMENT.versions("nvidia-pytriton", "onnxruntime", "numpy")}

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        model = work.scenario.model
        self._model = model.name
        package = ENVIRONMENT.package_folder("pytriton")
        triton = package / "tritonserver"
        stub = "triton_python_backend_stub"
        minor = ENVIRONMENT.python_minor()
        shutil.copy(triton / "python_backend_stubs" / minor / stub, triton / "backends" / "python" / stub)
        repository = folder / "triton"
        _write_repository(model, work.models, repository, placement)
        grpc_port = free_port()
        command = [str(triton / "bin" / "tritonserver"), "--model-repository", str(repository)]
        command += ["--backend-directory", str(triton / "backends"), "--allow-http", "false"]
        command += ["--allow-metrics", "false", "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port)]
        python = ENVIRONMENT.python
        libraries = f"{package.parent / 'nvidia_pytriton.libs'}:{ENVIRONMENT.library_folder()}"
        # The stub finds its packages through the environment's own `python`.
        environment = {"LD_LIBRARY_PATH": libraries, "VIRTUAL_ENV": str(ENVIRONMENT.folder)}
        environment |= {"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONPATH": ""}
        self._process = Process(self.name, command, folder, environment)
        self.address = f"127.0.0.1:{grpc_port}"
        with Endpoint(self.address) as endpoint:
            self._process.wait_until(lambda: endpoint.is_ready(model.name), timeout_s=60)
            self._version = endpoint.server_version()

    def pids(self) -> frozenset[int]:
        assert self._process is not None
        return self._process.pids()

    def fixed_answer(self, request: bytes) -> bytes | None:
        return None

    def counts(self) -> Counts | None:
        with Endpoint(self.address) as endpoint:
            return endpoint.counts(self._model)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def _write_repository(model: Model, models: Path, repository: Path, placement: Placement) -> None:
    folder = repository / model.name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").symlink_to(models / model.name / "1" / "model.onnx")
    shutil.copyfile(PROGRAM, folder / "model.py")
    (folder.parent / "config.pbtxt").write_text(config(model, placement))


def config(model: Model, placement: Placement) -> str:
    """The model configuration, protobuf text format."""
    settings = json.dumps(
        {"cpu": placement.model_cpu, "threads": placement.threads, "buckets": list(model.buckets)}
    )
    inputs = ", ".join(_tensor(spec, ragged=bool(model.buckets)) for spec in model.inputs)
    outputs = ", ".join(_tensor(spec) for spec in model.outputs)
    return (
        f'name: "{model.name}"\nbackend: "python"\nmax_batch_size: {model.max_batch_size}\n'
        f"dynamic_batching {{ }}\ninput [{inputs}]\noutput [{outputs}]\n"
        "instance_group [{kind: KIND_CPU count: 1}]\n"
        f'parameters [{{key: "bench" value: {{string_value: {json.dumps(settings)}}}}}]\n'
    )


def _tensor(spec: InputSpec | OutputSpec, ragged: bool = False) -> str:
    dims = ", ".join(str(size) for size in spec.shape)
    suffix = " allow_ragged_batch: true" if ragged else ""
    return f'{{name: "{spec.name}" data_type: TYPE_{spec.datatype} dims: [{dims}]{suffix}}}'
