"""The client of a Crossgate gateway, or of any server of the Open Inference Protocol over gRPC.

Needs grpcio, protobuf and numpy, and runs on any operating system.
"""

from crossgate.aio import AsyncClient
from crossgate.client import Client
from crossgate.descriptions import ModelIndex, ModelMetadata, ServerMetadata, TensorMetadata
from crossgate.errors import (
    Cancelled,
    CrossgateError,
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    MalformedResponse,
    ModelFailed,
    NotFound,
    NotOffered,
    PermissionDenied,
    RequestFailed,
    Unauthenticated,
    Unavailable,
)
from crossgate.request import InferRequest
from crossgate.result import InferResult
from crossgate.tensors import Tensor
from crossgate.tls import tls_credentials

__all__ = [
    "Client",
    "AsyncClient",
    "tls_credentials",
    "InferRequest",
    "InferResult",
    "Tensor",
    "ServerMetadata",
    "ModelMetadata",
    "TensorMetadata",
    "ModelIndex",
    "CrossgateError",
    "InvalidRequest",
    "NotFound",
    "Unavailable",
    "Exhausted",
    "DeadlineExceeded",
    "Unauthenticated",
    "PermissionDenied",
    "ModelFailed",
    "NotOffered",
    "Cancelled",
    "MalformedResponse",
    "RequestFailed",
]
