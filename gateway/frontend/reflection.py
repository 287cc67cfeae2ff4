"""Server reflection, v1 and v1alpha, over this project's own descriptor pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, text_format
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from gateway.frontend.codec import MalformedRequest
from protos.inference_pb2 import DESCRIPTOR
from protos.pool import POOL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from gateway.frontend.seam import StreamServicer

_V1 = "grpc.reflection.v1"
_V1ALPHA = "grpc.reflection.v1alpha"
_SERVICES = (
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    f"{_V1}.ServerReflection",
    reflection.SERVICE_NAME,
)


def reflection_streams() -> dict[str, StreamServicer]:
    """Return the streams of both versions; their messages are the same on the wire."""
    assert DESCRIPTOR.name  # importing it has filled the pool
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        POOL.AddSerializedFile(proto.SerializeToString())
    POOL.AddSerializedFile(_v1_file().SerializeToString())
    servicer = ReflectionServicer(_SERVICES, pool=POOL)

    async def serve(requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for response in servicer.ServerReflectionInfo(_decoded(requests), None):
            yield bytes(response.SerializeToString())

    return {f"/{package}.ServerReflection/ServerReflectionInfo": serve for package in (_V1, _V1ALPHA)}


def _v1_file() -> descriptor_pb2.FileDescriptorProto:
    """Return the file of v1, which is that of v1alpha in another package; grpcio-reflection ships no v1."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    v1 = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(text_format.MessageToString(alpha).replace(_V1ALPHA, _V1), v1)
    v1.name = "grpc/reflection/v1/reflection.proto"
    return v1


async def _decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for message in requests:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError as error:
            raise MalformedRequest("the message is not a ServerReflectionRequest") from error
