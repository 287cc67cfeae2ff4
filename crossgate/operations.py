"""Every unary method of the protocol as data: what is sent and how the answer is read. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crossgate.descriptions import ModelIndex, ModelMetadata, ServerMetadata, TensorMetadata
from crossgate.result import InferResult
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

    from crossgate.headers import Headers
    from crossgate.request import InferRequest
    from protos import model_config_pb2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One call to make. `read` takes the response message and the trailing metadata of the call and may raise
    MalformedResponse."""

    method: str
    request: Message
    read: Callable[[Any, Headers], T]


def infer(request: InferRequest) -> Operation[InferResult]:
    return Operation("ModelInfer", request.to_message(), InferResult.from_message)


def server_live() -> Operation[bool]:
    return Operation("ServerLive", pb.ServerLiveRequest(), lambda response, _: response.live)


def server_ready() -> Operation[bool]:
    return Operation("ServerReady", pb.ServerReadyRequest(), lambda response, _: response.ready)


def model_ready(name: str, version: str) -> Operation[bool]:
    request = pb.ModelReadyRequest(name=name, version=version)
    return Operation("ModelReady", request, lambda response, _: response.ready)


def server_metadata() -> Operation[ServerMetadata]:
    return Operation("ServerMetadata", pb.ServerMetadataRequest(), _server_metadata)


def model_metadata(name: str, version: str) -> Operation[ModelMetadata]:
    return Operation("ModelMetadata", pb.ModelMetadataRequest(name=name, version=version), _model_metadata)


def models(ready: bool) -> Operation[tuple[ModelIndex, ...]]:
    return Operation("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready), _models)


def statistics(name: str, version: str) -> Operation[tuple[pb.ModelStatistics, ...]]:
    request = pb.ModelStatisticsRequest(name=name, version=version)
    return Operation("ModelStatistics", request, lambda response, _: tuple(response.model_stats))


def model_config(name: str, version: str) -> Operation[model_config_pb2.ModelConfig]:
    request = pb.ModelConfigRequest(name=name, version=version)
    return Operation("ModelConfig", request, lambda response, _: response.config)


def _server_metadata(response: pb.ServerMetadataResponse, _: Headers) -> ServerMetadata:
    return ServerMetadata(response.name, response.version, tuple(response.extensions))


def _model_metadata(response: pb.ModelMetadataResponse, _: Headers) -> ModelMetadata:
    return ModelMetadata(
        name=response.name,
        versions=tuple(response.versions),
        platform=response.platform,
        inputs=_tensors(response.inputs),
        outputs=_tensors(response.outputs),
    )


def _tensors(tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)


def _models(response: pb.RepositoryIndexResponse, _: Headers) -> tuple[ModelIndex, ...]:
    return tuple(
        ModelIndex(model.name, model.version, model.state, model.reason) for model in response.models
    )
