"""Typed tensor contents: the protocol's other encoding, which servers such as MLServer answer in.

One repeated field per family of datatypes; small integers travel in wider fields. FP16 and BF16 have no field
(Open Inference Protocol, `InferTensorContents`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crossgate.errors import MalformedResponse
from crossgate.tensors import RAW_DTYPES, Array, count_elements, objects

if TYPE_CHECKING:
    from protos import inference_pb2 as pb

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def decode_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: pb.InferTensorContents
) -> Array:
    """An array of `shape` in the machine's byte order; BYTES gives an object array of bytes.

    Raises MalformedResponse when the datatype has no field, another field than its own is filled, the number
    of elements is not what `shape` says, or an element does not fit the datatype.
    """
    field = _FIELDS.get(datatype)
    if field is None:
        raise MalformedResponse(
            f"output {name!r} has datatype {datatype!r}, which typed contents cannot hold"
        )
    stray = [descriptor.name for descriptor, _ in contents.ListFields() if descriptor.name != field]
    if stray:
        raise MalformedResponse(f"output {name!r} is {datatype}, but its contents are in {', '.join(stray)}")
    elements = list(getattr(contents, field))
    try:
        expected = count_elements(shape)
    except ValueError as error:
        raise MalformedResponse(f"output {name!r}: {error}") from None
    if len(elements) != expected:
        raise MalformedResponse(
            f"output {name!r}: shape {list(shape)} takes {expected} elements, but there are {len(elements)}"
        )
    if datatype == "BYTES":
        return objects(elements).reshape(shape)
    dtype = RAW_DTYPES[datatype].newbyteorder("=")
    if dtype.kind in "iu" and elements:
        limits = np.iinfo(dtype)
        if min(elements) < limits.min or max(elements) > limits.max:
            raise MalformedResponse(f"output {name!r} holds an element that does not fit {datatype}")
    return np.array(elements, dtype=dtype).reshape(shape)
