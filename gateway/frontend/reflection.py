"""Server reflection, v1 and v1alpha, over this project's own descriptor pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from protos.inference_pb2 import DESCRIPTOR
from protos.pool import POOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.frontend.seam import StreamServicer

_SERVICES = ("inference.GRPCInferenceService", "grpc.health.v1.Health", reflection.SERVICE_NAME)


def reflection_streams() -> dict[str, StreamServicer]:
    """Return the streams of both versions; their messages are the same on the wire."""
    assert DESCRIPTOR.name  # importing it has filled the pool
    health = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(health)
    POOL.AddSerializedFile(health.SerializeToString())
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    POOL.AddSerializedFile(alpha.SerializeToString())
    servicer = ReflectionServicer(_SERVICES, pool=POOL)

    async def serve(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for response in servicer.ServerReflectionInfo(_decoded(requests), None):
            yield bytes(response.SerializeToString())

    return {
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo": serve
        for version in ("v1", "v1alpha")
    }


async def _decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for message in requests:
        yield reflection_pb2.ServerReflectionRequest.FromString(message)
