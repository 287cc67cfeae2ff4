"""Raw protocol bytes as numpy arrays and back. BYTES: each element is a uint32 little-endian length and that
many bytes.
"""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from wire.datatypes import BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workers.runtimes.runtime import Array

NUMPY_TYPES = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),  # numpy has no bfloat16; the bits travel as uint16
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)

_LENGTH = struct.Struct("<I")


def read(datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return a read-only view for numbers, an object array of `bytes` for BYTES.

    Raises:
        ValueError: the bytes do not make this shape.
    """
    if datatype != BYTES:
        return np.frombuffer(data, NUMPY_TYPES[datatype]).reshape(shape)
    elements = split_bytes(data)
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def split_bytes(data: memoryview) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Raises:
        ValueError: a length points past the end.
    """
    elements, at, end = [], 0, len(data)
    while at < end:
        if at + 4 > end:
            raise ValueError("a BYTES tensor ends within an element's length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if at + length > end:
            raise ValueError("a BYTES tensor ends within an element")
        elements.append(bytes(data[at : at + length]))
        at += length
    return elements


def join_bytes(elements: Iterable[bytes | str]) -> bytes:
    """Return the encoding of a BYTES tensor; `str` elements become UTF-8."""
    parts: list[bytes] = []
    for element in elements:
        raw = element.encode() if isinstance(element, str) else bytes(element)
        parts.append(_LENGTH.pack(len(raw)))
        parts.append(raw)
    return b"".join(parts)
