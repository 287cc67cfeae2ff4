"""A gRPC client of one server: messages go in and out as bytes, so that one client fits every peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from bench.peers.server import Counts
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from types import TracebackType

SERVICE = "/inference.GRPCInferenceService"
INFER = f"{SERVICE}/ModelInfer"


def describe(error: Exception) -> str:
    """One line; grpc's own text for a failed call starts with its least useful line."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)


class Endpoint:
    """Any call may raise grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def infer(self, request: bytes, timeout_s: float = 30) -> bytes:
        return self._call("ModelInfer", request, timeout_s)

    def is_ready(self, model: str) -> bool:
        try:
            answer = self._call("ModelReady", pb.ModelReadyRequest(name=model).SerializeToString(), 2)
        except grpc.RpcError:
            return False
        return pb.ModelReadyResponse.FromString(answer).ready

    def server_version(self) -> str:
        answer = self._call("ServerMetadata", pb.ServerMetadataRequest().SerializeToString(), 5)
        metadata = pb.ServerMetadataResponse.FromString(answer)
        return f"{metadata.name} {metadata.version}"

    def counts(self, model: str) -> Counts:
        """Sums over versions. `batches` is the number of times that the model ran."""
        request = pb.ModelStatisticsRequest(name=model).SerializeToString()
        statistics = pb.ModelStatisticsResponse.FromString(
            self._call("ModelStatistics", request, 5)
        ).model_stats
        return Counts(
            requests=sum(entry.inference_count for entry in statistics),
            batches=sum(entry.execution_count for entry in statistics),
            failures=sum(entry.inference_stats.fail.count for entry in statistics),
        )

    def _call(self, method: str, message: bytes, timeout_s: float) -> bytes:
        answer: bytes = self._channel.unary_unary(f"{SERVICE}/{method}")(message, timeout=timeout_s)
        return answer
