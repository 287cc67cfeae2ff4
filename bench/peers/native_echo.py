"""The bare native echo: the floor of a gateway whose transport is the native one. It runs no model."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.process import Process, StartFailed
from gateway.extension import find_extension
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from bench.peers.server import Counts, Placement
    from bench.samples import Work

PROGRAM = Path(__file__).parents[1] / "programs" / "native_echo.py"


class NativeEcho:
    """Answers everything with the model's answer to the first sample."""

    name = "native-echo"
    description = (
        "bare server of the native transport, always the same answer; no Python per request, no model; free"
    )

    def __init__(self) -> None:
        self.address = ""
        self._answer = b""
        self._process: Process | None = None

    @property
    def versions(self) -> dict[str, str]:
        return {"crossgate": version("crossgate")}

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        extension = find_extension()
        if extension.module is None or not hasattr(extension.module, "Echo"):
            reason = extension.reason or "the native extension has no Echo"
            raise StartFailed(self.name, "cannot start", reason)
        self._answer = answer(work)
        file = folder / "answer"
        file.write_bytes(self._answer)
        self._process = Process(self.name, [sys.executable, "-P", str(PROGRAM), str(file)], folder)
        self.address = self._process.wait_line("ready grpc=", timeout_s=30).partition("=")[2]

    def pids(self) -> frozenset[int]:
        assert self._process is not None
        return self._process.pids()

    def fixed_answer(self, request: bytes) -> bytes | None:
        return self._answer

    def counts(self) -> Counts | None:
        return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


def answer(work: Work) -> bytes:
    """A serialised ModelInferResponse as a gateway would send it."""
    model = work.scenario.model
    message = pb.ModelInferResponse(model_name=model.name, model_version="1", id="1")
    for spec in model.outputs:
        array = work.samples[0].expected[spec.name]
        message.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return message.SerializeToString()
