"""A real gRPC server that answers as its script says."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from protos import inference_pb2 as pb
from protos import inference_pb2_grpc


@dataclass(frozen=True)
class Fail:
    """Answer one ModelInfer with a status."""

    code: grpc.StatusCode
    details: str = "scripted"
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Hold:
    """Answer one ModelInfer only after its client gave up."""


@dataclass(frozen=True)
class Answer:
    """Answer one ModelInfer with this message."""

    message: pb.ModelInferResponse


@dataclass(frozen=True)
class Seen:
    """One received ModelInfer."""

    request: pb.ModelInferRequest
    metadata: dict[str, str | bytes]
    remaining_s: float | None


def doubled(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """The model `double`: y = 2 * x, with the datatype and shape of x."""
    dtype = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[request.inputs[0].datatype]
    y = np.frombuffer(request.raw_input_contents[0], dtype) * 2
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version or "1", id=request.id
    )
    response.parameters["batch_size"].int64_param = 1
    response.outputs.add(name="y", datatype=request.inputs[0].datatype, shape=request.inputs[0].shape)
    response.raw_output_contents.append(y.astype(dtype).tobytes())
    return response


@dataclass
class ScriptedServer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Follows `script` and, once that is used up, succeeds. `held` is set while a call is held, `given_up`
    when the client of a held call or of a stream went away."""

    script: deque[Fail | Hold | Answer] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def ModelInfer(self, request, context):
        self.seen.append(Seen(request, dict(context.invocation_metadata()), context.time_remaining()))
        step = self.script.popleft() if self.script else None
        if isinstance(step, Fail):
            context.set_trailing_metadata(step.trailers)
            context.abort(step.code, step.details)
        if isinstance(step, Hold):
            context.add_callback(self.given_up.set)
            self.held.set()
            self.given_up.wait(30)
            return pb.ModelInferResponse()
        context.set_trailing_metadata((("crossgate-version", "1"), ("crossgate-revision", "42")))
        return step.message if isinstance(step, Answer) else doubled(request)

    def ModelStreamInfer(self, requests, context):
        context.add_callback(self.given_up.set)
        for request in requests:
            if request.model_name == "fatal":
                context.abort(grpc.StatusCode.INTERNAL, "the stream broke")
            if request.model_name == "double":
                yield pb.ModelStreamInferResponse(infer_response=doubled(request))
            else:
                failed = pb.ModelInferResponse(id=request.id)
                yield pb.ModelStreamInferResponse(
                    error_message=f"no model {request.model_name!r}", infer_response=failed
                )

    def ServerLive(self, request, context):
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request, context):
        return pb.ServerReadyResponse(ready=False)

    def ModelReady(self, request, context):
        if request.name != "double":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name!r}; there is double")
        return pb.ModelReadyResponse(ready=request.version in ("", "1"))

    def ServerMetadata(self, request, context):
        return pb.ServerMetadataResponse(name="scripted", version="3", extensions=["statistics"])

    def ModelMetadata(self, request, context):
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=["1", "2"],
            platform="onnx_onnxv1",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, 2])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1, 2])],
        )

    def RepositoryIndex(self, request, context):
        index = pb.RepositoryIndexResponse.ModelIndex
        models = [index(name="double", version="1", state="READY")]
        if not request.ready:
            models.append(index(name="double", version="2", state="LOADING", reason="warm-up"))
        return pb.RepositoryIndexResponse(models=models)

    def ModelStatistics(self, request, context):
        return pb.ModelStatisticsResponse(
            model_stats=[pb.ModelStatistics(name=request.name, version="1", inference_count=7)]
        )

    # ModelConfig is left to the generated base class, which answers UNIMPLEMENTED.


class FakeTime:
    """A clock that only its own sleep moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self.now_s += delay_s

    async def sleep_async(self, delay_s: float) -> None:
        self.sleep(delay_s)


@pytest.fixture
def serve():
    """Start a server with a script; every one is stopped after the test."""
    running = []

    def start(*script, credentials=None):
        servicer = ScriptedServer(deque(script))
        pool = ThreadPoolExecutor(4)
        server = grpc.server(pool)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servicer.address = f"127.0.0.1:{port}"
        running.append((server, pool, servicer))
        return servicer

    yield start
    for server, pool, servicer in running:
        servicer.given_up.set()
        server.stop(None).wait()
        pool.shutdown()


@pytest.fixture
def dead_address():
    """Where nothing listens: a port that is bound and never accepts."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def time_():
    return FakeTime()


@pytest.fixture
def fail():
    """`fail(code, **)` makes a step of a script."""
    return Fail


@pytest.fixture
def pushback():
    """`pushback(ms)` is a step that fails with RESOURCE_EXHAUSTED and asks for a retry after so many
    milliseconds."""
    return lambda ms: Fail(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", (("grpc-retry-pushback-ms", str(ms)),)
    )


@pytest.fixture
def hold():
    return Hold()


@pytest.fixture
def answer():
    """`answer(message)` makes a step of a script."""
    return Answer
