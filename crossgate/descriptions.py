"""What a server tells about itself and its models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """`extensions` lists the protocol extensions that the server offers."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output; a dimension of -1 is variable."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's signature. `platform` is `<project>_<format>`, for example `onnx_onnxv1`."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True, slots=True)
class ModelIndex:
    """One version of a model in the repository; `state` is READY, LOADING, UNAVAILABLE or another word of the
    server's, and `reason` says why."""

    name: str
    version: str
    state: str
    reason: str
