"""Tensors as the protocol sends them, and their way from and to numpy.

Raw bytes are little-endian and row-major without padding; BOOL is one byte an element; a BYTES element is its
length as an unsigned 32-bit little-endian integer and then that many bytes (Open Inference Protocol, "Raw
Tensor Contents", and Triton's binary tensor data extension). Both directions keep every bit, including NaN
payloads.
"""

from __future__ import annotations

import importlib
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossgate.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]

# {datatype: the little-endian dtype its raw bytes are read as}; BYTES has none
RAW_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}

# {(kind, bytes of an element): datatype}
_DATATYPES = {(dtype.kind, dtype.itemsize): name for name, dtype in RAW_DTYPES.items() if name != "BF16"}

_LENGTH = struct.Struct("<I")
_MAX_ELEMENT_BYTES = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor given as raw bytes, for a datatype that numpy lacks or bytes that are encoded already.

    `shape` has no negative dimension; the empty shape is a scalar. Raises TypeError unless `data` is bytes,
    ValueError for an unknown datatype or when `data` does not hold exactly the elements that `shape` says.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise TypeError(f"a tensor's data must be bytes, not {_kind(self.data)}")
        if self.datatype == "BYTES":
            _split(self.shape, self.data)
        else:
            _check_size(self.datatype, self.shape, self.data)


def encode(name: str, value: object) -> Tensor:
    """`value` as raw bytes: a `Tensor` as it is, an array, a scalar, or nested lists of equal lengths.

    Arrays may have any byte order and any strides. Lists take numpy's default datatypes: integers are INT64,
    floats FP64, str and bytes BYTES (str as UTF-8). A numpy `S` array has already lost trailing zero bytes of
    its elements; an object array or a list keeps them. Raises TypeError for what is no tensor or has no
    datatype in the protocol, ValueError for ragged or empty lists; both name the tensor.
    """
    if isinstance(value, Tensor):
        return value
    array = _array(name, value)
    datatype = _datatype(name, array.dtype)
    if datatype == "BYTES":
        return Tensor(datatype, array.shape, _join(name, array))
    return Tensor(datatype, array.shape, _little_endian(array).tobytes())


def decode(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> Array:
    """An array of `shape` in the machine's byte order; read-only where it is a view of `raw`.

    BYTES gives an object array of bytes. BF16 gives `ml_dtypes.bfloat16` where that package is installed,
    else the bits as uint16. Raises MalformedResponse when `raw` does not hold exactly the elements that
    `shape` says.
    """
    try:
        if datatype == "BYTES":
            return objects(_split(shape, raw)).reshape(shape)
        _check_size(datatype, shape, raw)
    except ValueError as error:
        raise MalformedResponse(f"output {name!r}: {error}") from None
    if datatype == "BOOL":  # a server may say true with any bit
        return np.frombuffer(raw, np.uint8).astype(np.bool_).reshape(shape)
    flat = np.frombuffer(raw, RAW_DTYPES[datatype])
    array = flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape)
    if datatype == "BF16":
        bfloat16 = _bfloat16()
        return array if bfloat16 is None else array.view(bfloat16)
    return array


def objects(elements: Sequence[str | bytes]) -> Array:
    """A one-dimensional object array; unlike `S` and `U` arrays it keeps every element as it is."""
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def count_elements(shape: tuple[int, ...]) -> int:
    """The product of the dimensions; ValueError for a negative one."""
    if any(dimension < 0 for dimension in shape):
        raise ValueError(f"shape {list(shape)} has a negative dimension")
    return math.prod(shape)


def _array(name: str, value: object) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"input {name!r} is a masked array, and the protocol has no mask; fill it first")
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (str, bytes)):
        return objects([value]).reshape(())
    if isinstance(value, (list, tuple)):
        return _array_of_lists(name, value)
    if isinstance(value, (bool, int, float, np.generic)) or hasattr(value, "__array__"):
        try:
            return np.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"input {name!r} cannot become an array: {error}") from error
    raise TypeError(f"input {name!r} is {_kind(value)}, which is no array")


def _array_of_lists(name: str, value: list[Any] | tuple[Any, ...]) -> Array:
    first = value
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if isinstance(first, (list, tuple)):
        raise ValueError(f"input {name!r} is an empty list, which has no datatype; give a numpy array")
    text = isinstance(first, (str, bytes)) or (isinstance(first, np.ndarray) and first.dtype.kind in "SUOT")
    try:
        array = np.array(value, dtype=np.object_) if text else np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"input {name!r} is no tensor: {error}") from error
    if not text and array.dtype.kind in "SUO":
        raise TypeError(f"input {name!r} mixes elements that have no common datatype")
    return array


def _datatype(name: str, dtype: np.dtype[Any]) -> str:
    if dtype.kind in "SUOT":
        return "BYTES"
    if dtype.name == "bfloat16":  # by name, so that ml_dtypes is needed only by those who use it
        return "BF16"
    try:
        return _DATATYPES[dtype.kind, dtype.itemsize]
    except KeyError:
        raise TypeError(f"input {name!r} has dtype {dtype}, which the protocol does not have") from None


def _little_endian(array: Array) -> Array:
    if array.dtype.name == "bfloat16":
        array = np.ascontiguousarray(array).view(np.uint16)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _join(name: str, array: Array) -> bytes:
    parts: list[bytes] = []
    for index, element in enumerate(array.ravel().tolist()):
        if isinstance(element, str):
            try:
                data = element.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"input {name!r}: element {index} is no valid text: {error}") from error
        elif isinstance(element, (bytes, bytearray)):
            data = bytes(element)
        elif isinstance(element, (list, tuple)):
            raise ValueError(f"input {name!r} is ragged: element {index} is {_kind(element)}")
        else:
            raise TypeError(f"input {name!r}: element {index} is {_kind(element)}, neither str nor bytes")
        if len(data) > _MAX_ELEMENT_BYTES:
            raise ValueError(f"input {name!r}: element {index} has {len(data)} bytes, the limit is 2**32 - 1")
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _split(shape: tuple[int, ...], raw: bytes) -> list[bytes]:
    """The elements of BYTES data; ValueError unless there are exactly as many as `shape` says."""
    elements: list[bytes] = []
    start = 0
    while start < len(raw):
        if start + _LENGTH.size > len(raw):
            raise ValueError(f"the length of BYTES element {len(elements)} is cut off")
        (length,) = _LENGTH.unpack_from(raw, start)
        start += _LENGTH.size
        if start + length > len(raw):
            raise ValueError(f"BYTES element {len(elements)} says {length} bytes and is cut off")
        elements.append(raw[start : start + length])
        start += length
    expected = count_elements(shape)
    if len(elements) != expected:
        raise ValueError(
            f"BYTES of shape {list(shape)} takes {expected} elements, but there are {len(elements)}"
        )
    return elements


def _check_size(datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    """ValueError unless `raw` has the size of a tensor of `shape` whose datatype is not BYTES."""
    if datatype not in RAW_DTYPES:
        raise ValueError(f"unknown datatype {datatype!r}; there are BYTES, {', '.join(RAW_DTYPES)}")
    expected = count_elements(shape) * RAW_DTYPES[datatype].itemsize
    if len(raw) != expected:
        raise ValueError(
            f"{datatype} of shape {list(shape)} takes {expected} bytes, but there are {len(raw)}"
        )


def _bfloat16() -> np.dtype[Any] | None:
    try:
        dtype: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        return None
    return dtype


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"
