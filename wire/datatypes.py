"""Datatype names of the Open Inference Protocol and the size of their elements."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES = "BYTES"

# Bytes per element; BYTES is missing on purpose: its elements carry their own length.
ELEMENT_SIZE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "BOOL": 1,
        "UINT8": 1,
        "UINT16": 2,
        "UINT32": 4,
        "UINT64": 8,
        "INT8": 1,
        "INT16": 2,
        "INT32": 4,
        "INT64": 8,
        "FP16": 2,
        "BF16": 2,
        "FP32": 4,
        "FP64": 8,
    }
)

DATATYPES = frozenset(ELEMENT_SIZE_BYTES) | {BYTES}
