"""Requests of every kind: typed, raw, and wrong in every way that the protocol forbids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from served_models import MAX_ROWS, NUMPY_TYPES
from wire_calls import Input, encoded, numbers, request, set_parameter, words

if TYPE_CHECKING:
    from protos import inference_pb2 as pb

X = numbers("x", [[1.0, 2.0, 3.0, 4.0]])
ONE = numbers("x", [1.0])
PAIR = (numbers("numbers", [1.5, -2.5]), words("words", b"a", b"bc"))
ROWS = (numbers("a", [[1, 2]], "INT32"), numbers("b", [[3]], "INT32"))
WORDS_SHAPE = (2,)

# {datatype: (typed field, values)}: what JSON-minded clients send
TYPED = {
    "BOOL": ("bool_contents", [True, False, True]),
    "INT8": ("int_contents", [-128, 0, 127]),
    "INT16": ("int_contents", [-(2**15), 0, 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 0, 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 1, 255]),
    "UINT16": ("uint_contents", [0, 1, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 1, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 1, 2**64 - 1]),
    "FP32": ("fp32_contents", [-0.0, 1.5, float("inf")]),
    "FP64": ("fp64_contents", [-0.0, 1e300, float("-inf")]),
    "BYTES": ("bytes_contents", [b"", b"\0\xff", "日本".encode()]),
}


def with_typed(message: pb.ModelInferRequest, index: int, **contents: list) -> pb.ModelInferRequest:
    for field, values in contents.items():
        getattr(message.inputs[index].contents, field).extend(values)
    return message


def echo(datatype: str, *tensors: Input, **rest: object) -> pb.ModelInferRequest:
    return request(f"echo_{datatype.lower()}", *tensors, **rest)


def typed(
    datatype: str, field: str, values: list, shape: tuple[int, ...] | None = None
) -> pb.ModelInferRequest:
    shape = (1, len(values)) if shape is None else shape
    return with_typed(echo(datatype, Input("x", datatype, shape, None)), 0, **{field: values})


def elements_of(datatype: str) -> bytes:
    """Raw bytes of a [2, 3] tensor, all different where the datatype allows it."""
    if datatype == "BYTES":
        return encoded([b"", b"\0", b"\xff\xfe", "ä".encode(), b"x" * 300, b"\n"])
    if datatype == "BOOL":
        return bytes([0, 1, 1, 0, 1, 0])
    return bytes(range(6 * np.dtype(NUMPY_TYPES[datatype]).itemsize))


def with_output_parameter(key: str, value: int | str) -> pb.ModelInferRequest:
    message = request("affine", X, outputs=["y"])
    set_parameter(message.outputs[0].parameters[key], value)
    return message


def without_raw(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    del message.raw_input_contents[:]
    return message


def with_raw_again(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    message.raw_input_contents.append(message.raw_input_contents[-1])
    return message


# (request, what the message says); all of them are INVALID_ARGUMENT
INVALID = {
    "unknown input": (request("affine", numbers("z", [[1.0]])), ("'z'", "x")),
    "extra input": (request("affine", X, numbers("z", [[1.0]])), ("'z'", "x")),
    "missing input": (request("pair", PAIR[0]), ("'words'", "missing")),
    "no input": (request("affine"), ("'x'", "missing")),
    "duplicate input": (request("affine", X, X), ("'x'", "twice")),
    "wrong datatype": (request("affine", numbers("x", [[1, 2, 3, 4]], "INT32")), ("'x'", "FP32", "INT32")),
    "unheard-of datatype": (request("affine", X._replace(datatype="FP8")), ("'x'", "FP32", "FP8")),
    "no datatype": (request("affine", X._replace(datatype="")), ("'x'", "FP32")),
    "wrong rank": (request("affine", numbers("x", [1.0, 2.0, 3.0, 4.0])), ("'x'", "[-1, 4]", "[4]")),
    "wrong dimension": (request("affine", numbers("x", [[1.0, 2.0]])), ("'x'", "[-1, 4]", "[1, 2]")),
    "negative dimension": (request("affine", X._replace(shape=(-1, 4))), ("'x'", "[-1, 4]")),
    "huge dimension": (request("affine", X._replace(shape=(2**62, 4))), ()),
    "too few bytes": (request("affine", X._replace(raw=X.raw[:-1])), ("'x'", "15", "16")),
    "too many bytes": (request("affine", X._replace(raw=X.raw + b"\0")), ("'x'", "17", "16")),
    "fewer raw contents than inputs": (request("pair", PAIR[0], PAIR[1]._replace(raw=None)), ("1", "2")),
    "more raw contents than inputs": (with_raw_again(request("affine", X)), ("2", "1")),
    "raw and typed": (with_typed(request("affine", X), 0, fp32_contents=[1.0] * 4), ("'x'",)),
    "raw and typed of different inputs": (
        with_typed(request("pair", PAIR[0], PAIR[1]._replace(raw=None)), 1, bytes_contents=[b"a", b"b"]),
        (),
    ),
    "neither raw nor typed": (without_raw(request("affine", X)), ("'x'", "no data")),
    "typed in another field": (
        with_typed(without_raw(request("affine", X)), 0, fp64_contents=[1.0] * 4),
        ("'x'", "fp64_contents", "fp32_contents"),
    ),
    "typed in two fields": (
        with_typed(without_raw(request("affine", X)), 0, fp32_contents=[1.0] * 4, int_contents=[1]),
        ("'x'", "int_contents"),
    ),
    "too few typed": (typed("FP32", "fp32_contents", [1.0], (1, 2)), ("'x'", "4 bytes", "8")),
    "too many typed": (typed("FP32", "fp32_contents", [1.0] * 3, (1, 2)), ("'x'", "12 bytes", "8")),
    "typed values for an empty shape": (typed("FP32", "fp32_contents", [1.0], (1, 0)), ("'x'", "4 bytes")),
    "typed INT8 out of range": (typed("INT8", "int_contents", [128]), ("'x'", "INT8")),
    "typed INT16 out of range": (typed("INT16", "int_contents", [-(2**15) - 1]), ("'x'", "INT16")),
    "typed UINT8 out of range": (typed("UINT8", "uint_contents", [256]), ("'x'", "UINT8")),
    "typed UINT16 out of range": (typed("UINT16", "uint_contents", [2**16]), ("'x'", "UINT16")),
    "typed FP16": (typed("FP16", "fp32_contents", [1.0]), ("'x'", "FP16", "raw_input_contents")),
    "typed BF16": (typed("BF16", "fp32_contents", [1.0]), ("'x'", "BF16", "raw_input_contents")),
    "too few typed BYTES": (typed("BYTES", "bytes_contents", [b"a"], (1, 2)), ("'x'", "2 elements")),
    "BYTES cut in an element": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, encoded([b"a", b"bc"])[:-1])),
        ("'words'", "2 elements"),
    ),
    "BYTES cut in a length": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, encoded([b"a"]) + b"\0\0")),
        ("'words'", "2 elements"),
    ),
    "BYTES with something behind": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, encoded([b"a", b"b"]) + b"\0")),
        ("'words'", "2 elements"),
    ),
    "BYTES with too few elements": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, encoded([b"a"]))),
        ("'words'", "2 elements"),
    ),
    "BYTES with too many elements": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, encoded([b"a", b"b", b"c"]))),
        ("'words'", "2 elements"),
    ),
    "BYTES with a huge length": (
        request("pair", PAIR[0], Input("words", "BYTES", WORDS_SHAPE, b"\xff\xff\xff\xffab")),
        ("'words'", "2 elements"),
    ),
    "unknown output": (request("affine", X, outputs=["w"]), ("'w'", "y")),
    "one unknown output of two": (request("affine", X, outputs=["y", "w"]), ("'w'", "y")),
    "more rows than a batch": (
        request("rows", *[t._replace(shape=(5, t.shape[1]), raw=t.raw * 5) for t in ROWS]),
        ("5", str(MAX_ROWS)),
    ),
    "no rows": (request("rows", *[t._replace(shape=(0, t.shape[1]), raw=b"") for t in ROWS]), ("row",)),
    "different numbers of rows": (
        request("rows", ROWS[0], ROWS[1]._replace(shape=(2, 1), raw=ROWS[1].raw * 2)),
        ("'b'", "2", "1"),
    ),
    "a sequence": (request("affine", X, parameters={"sequence_id": 7}), ("sequence_id",)),
    "a sequence named by a string": (request("affine", X, parameters={"sequence_id": "s"}), ("sequence_id",)),
    "classification": (with_output_parameter("classification", 2), ("'y'", "classification")),
    "shared memory": (with_output_parameter("shared_memory_region", "r"), ("'y'", "shared_memory_region")),
}  # fmt: skip
