"""Requests as messages, and a plain gRPC client for them that hides nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served_models import NUMPY_TYPES

from protos import inference_pb2 as pb
from protos import inference_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

CALL_S: Final = 15.0  # bounds every call of a test
SERVICE: Final = "/inference.GRPCInferenceService/"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Input(NamedTuple):
    """One input of a request; `raw` None leaves its entry of raw_input_contents out."""

    name: str
    datatype: str
    shape: Sequence[int]
    raw: bytes | None


class Answer(NamedTuple):
    response: pb.ModelInferResponse
    trailing: dict[str, str | bytes]

    def array(self, name: str) -> np.ndarray:
        """Return a numeric output."""
        tensor, raw = self.raw(name)
        return np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape)

    def raw(self, name: str) -> tuple[pb.ModelInferResponse.InferOutputTensor, bytes]:
        assert len(self.response.outputs) == len(self.response.raw_output_contents)
        for tensor, raw in zip(self.response.outputs, self.response.raw_output_contents, strict=True):
            if tensor.name == name:
                return tensor, raw
        raise KeyError(name)


def encoded(elements: Iterable[bytes]) -> bytes:
    """Return BYTES elements in raw form."""
    return b"".join([len(e).to_bytes(4, "little") + e for e in elements])


def numbers(name: str, values: Any, datatype: str = "FP32") -> Input:
    array = np.asarray(values, NUMPY_TYPES[datatype])
    return Input(name, datatype, array.shape, array.tobytes())


def words(name: str, *elements: bytes) -> Input:
    return Input(name, "BYTES", (len(elements),), encoded(elements))


def request(
    model: str,
    *inputs: Input,
    version: str = "",
    id: str = "",
    outputs: Sequence[str] = (),
    parameters: Mapping[str, bool | int | float | str] | None = None,
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for tensor in inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.raw is not None:
            message.raw_input_contents.append(tensor.raw)
    for name in outputs:
        message.outputs.add(name=name)
    for key, value in (parameters or {}).items():
        set_parameter(message.parameters[key], value)
    return message


def set_parameter(parameter: pb.InferParameter, value: bool | int | float | str) -> None:
    field = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
    setattr(parameter, field, value)


class Wire:
    """A connection of its own to one address."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = (*_UNLIMITED, ("grpc.use_local_subchannel_pool", 1))
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.stub = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def infer(self, message: pb.ModelInferRequest, **options: Any) -> Answer:
        response, call = self.stub.ModelInfer.with_call(message, **{"timeout": CALL_S, **options})
        return Answer(response, dict(call.trailing_metadata()))

    def start(self, message: pb.ModelInferRequest, timeout_s: float = CALL_S) -> grpc.Future:
        return self.stub.ModelInfer.future(message, timeout=timeout_s)

    def stream(
        self, messages: Iterator[pb.ModelInferRequest] | Sequence[pb.ModelInferRequest], **options: Any
    ) -> Any:
        return self.stub.ModelStreamInfer(iter(messages), **{"timeout": CALL_S, **options})

    def ask(self, method: str, message: Any, **options: Any) -> Any:
        """Call any other RPC of the inference service."""
        return getattr(self.stub, method)(message, **{"timeout": CALL_S, **options})

    def refused(self, message: pb.ModelInferRequest, **options: Any) -> grpc.RpcError:
        """Return the error that a request is answered with."""
        with pytest.raises(grpc.RpcError) as caught:
            self.infer(message, **options)
        return caught.value

    def send_bytes(self, path: str, message: bytes) -> bytes:
        """Call a method with a message that nobody has checked."""
        return self.channel.unary_unary(path)(message, timeout=CALL_S)

    def status(self, service: str) -> int:
        return self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S).status

    def statistics(self, model: str, version: str = "1") -> pb.ModelStatistics:
        answer = self.ask("ModelStatistics", pb.ModelStatisticsRequest(name=model, version=version))
        (statistics,) = answer.model_stats
        return statistics

    def wait_for_statistics(
        self, model: str, reached: Callable[[pb.ModelStatistics], bool]
    ) -> pb.ModelStatistics:
        """Return a model's statistics once they fulfil a condition; the last ones when they never do."""
        until_s = time.monotonic() + CALL_S
        while True:
            statistics = self.statistics(model)
            if reached(statistics) or time.monotonic() > until_s:
                return statistics


def trailing(error: grpc.RpcError) -> dict[str, str | bytes]:
    return dict(error.trailing_metadata() or ())
