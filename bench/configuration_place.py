"""What the scenarios of configuration run on: an etcd, a gateway that follows it, and a model whose answers
say which version gave them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from bench.peers.process import Process, StartFailed, free_port
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ETCD_VARIABLE: Final = "CROSSGATE_TEST_ETCD"
START_S: Final = 60.0
WIDTH: Final = 16  # floats in a request
NAME_IN_STORE: Final = "bench"


class Etcd:
    """One member on loopback, as a context manager. `kill` and `start` keep its data and its ports."""

    def __init__(self, folder: Path) -> None:
        """Raises StartFailed where there is none."""
        binary = shutil.which(os.environ.get(ETCD_VARIABLE) or "etcd")
        if binary is None:
            raise StartFailed("etcd", "there is none on the PATH (Debian: etcd-server)", "")
        self._folder = folder
        self._client = f"http://127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self._command = [
            *(binary, "--name", "one", "--data-dir", str(folder / "data"), "--log-level", "error"),
            *("--listen-client-urls", self._client, "--advertise-client-urls", self._client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"one={peer}", "--logger", "zap"),
        ]
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return self.at("bench")

    def at(self, prefix: str) -> str:
        return f"etcd://{self._client.removeprefix('http://')}/{prefix}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.stop()

    def start(self) -> None:
        """Return when it says that it is healthy."""
        self._process = Process("etcd", self._command, self._folder)
        self._process.wait_until(self._is_healthy, START_S)

    def kill(self) -> None:
        assert self._process is not None, "it runs"
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.stop()

    def _is_healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self._client}/health", timeout=2) as reply:
                return bool(json.load(reply)["health"] == "true")
        except (OSError, ValueError):
            return False


class Gateway:
    """`crossgate serve` that follows a store, as a context manager; ready when it is entered. `address` and
    `pid` are known before.
    """

    def __init__(self, store: str, folder: Path, cpu: int) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._command = [
            *(sys.executable, "-P", "-m", "crossgate.cli", "serve", "--store", store),
            *("--slot", f"cpu:{cpu}", "--name", NAME_IN_STORE, "--admin", "off", "--log-level", "warning"),
            *("--grpc-port", self.address.rpartition(":")[2]),
            *("--http-port", self.http.rpartition(":")[2], "--state-folder", str(folder / "state")),
        ]
        self._process: Process | None = None

    def __enter__(self) -> Self:
        try:
            if self._process is None:
                self.launch()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def launch(self) -> None:
        """Start the process, and wait for nothing: entering the context does. Until then, `stop` ends it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = Process("gateway", self._command, self._folder)

    def wait_ready(self) -> None:
        self.process.wait_line("ready ", START_S)

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was launched"
        return self._process

    def metrics(self) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.http}/metrics", timeout=10) as reply:
            return str(reply.read().decode())


class Versions:
    """Files of a model in a folder: version n answers n times what it is sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def source(self, version: int) -> str:
        """Return the URL of a version, whose file is written when it is asked for first."""
        path = self._folder / f"times-{version}.onnx"
        if not path.exists():
            path.write_bytes(_times(version))
        return path.as_uri()

    def document(
        self, model: str, versions: Sequence[int], split: Mapping[int, int], **policy: Any
    ) -> dict[str, Any]:
        return {
            "model": model,
            "versions": {str(version): {"source": self.source(version)} for version in versions},
            "traffic": {"split": {str(version): weight for version, weight in split.items()}},
            "instances": [{"runtime": "onnxruntime", "device": "cpu", "count": 1, "threads": 1}],
            "batching": {"max_batch_size": 64, "batchable": True},
            **policy,
        }


def request(model: str) -> bytes:
    """A request of ones."""
    message = pb.ModelInferRequest(model_name=model, id="1")
    message.inputs.add(name="x", datatype="FP32", shape=(1, WIDTH))
    message.raw_input_contents.append(np.ones(WIDTH, np.float32).tobytes())
    return message.SerializeToString()


def answering_version(message: pb.ModelInferResponse) -> str:
    """Which version the values of an answer to `request` are of."""
    values = np.frombuffer(message.raw_output_contents[0], np.float32)
    version = int(values[0])
    return str(version) if values.shape == (WIDTH,) and np.all(values == version) else "none"


def _times(factor: int) -> bytes:
    from onnx import TensorProto, checker, helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "times",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [float(factor)])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
