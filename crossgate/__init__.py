"""The client of a Crossgate gateway, or of any server of the Open Inference Protocol over gRPC.

Needs grpcio, protobuf and numpy, and runs on any operating system.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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

# What is where: imported when it is first asked for. numpy and gRPC take longer than most commands.
_MODULES: Final = {
    "AsyncClient": "crossgate.aio",
    "Cancelled": "crossgate.errors",
    "Client": "crossgate.client",
    "CrossgateError": "crossgate.errors",
    "DeadlineExceeded": "crossgate.errors",
    "Exhausted": "crossgate.errors",
    "InferRequest": "crossgate.request",
    "InferResult": "crossgate.result",
    "InvalidRequest": "crossgate.errors",
    "MalformedResponse": "crossgate.errors",
    "ModelFailed": "crossgate.errors",
    "ModelIndex": "crossgate.descriptions",
    "ModelMetadata": "crossgate.descriptions",
    "NotFound": "crossgate.errors",
    "NotOffered": "crossgate.errors",
    "PermissionDenied": "crossgate.errors",
    "RequestFailed": "crossgate.errors",
    "ServerMetadata": "crossgate.descriptions",
    "Tensor": "crossgate.tensors",
    "TensorMetadata": "crossgate.descriptions",
    "Unauthenticated": "crossgate.errors",
    "Unavailable": "crossgate.errors",
    "tls_credentials": "crossgate.tls",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
