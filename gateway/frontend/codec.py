"""ModelInferRequest to the parts of a Call, and Replies to ModelInferResponse, with as few copies as Python
allows.

protobuf copies every `bytes` field that is read. In large messages the tensors (`raw_input_contents`, field
7) are therefore found by scanning the top level of the message and sliced out of it; the rest is left to
protobuf. Responses are a header that is encoded once for each shape, and the tensors' bytes behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from gateway.call import Buffer, Parameter, Tensor
from gateway.errors import InvalidRequest
from protos import inference_pb2 as pb
from wire.datatypes import BYTES, DATATYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.call import Reply

# Empty inputs take two bytes each in a message and a hundred in memory.
MAX_PARTS = 10_000
# Below this, protobuf's own copies cost less than scanning in Python.
SCAN_FROM_BYTES = 16 << 10
_RAW_TAG = 7 << 3 | 2
_MAX_HEADERS = 1024

_CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "<i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "<u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
}


# Parameters of requested outputs whose answer would not be the raw bytes that this server sends.
_OTHER_FORMS = frozenset(("classification", "shared_memory_region"))


class MalformedRequest(InvalidRequest):
    """The message is no ModelInferRequest, or breaks the protocol's rules."""


class Request(NamedTuple):
    model: str
    version: str
    id: str
    parameters: Mapping[str, Parameter]
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def decode_request(message: bytes) -> Request:
    """Read a ModelInferRequest. Large tensors are views of `message`.

    Raises:
        MalformedRequest: it is none, or mixes raw and typed contents, or a tensor has neither.
    """
    try:
        scanned = _scan(memoryview(message)) if len(message) >= SCAN_FROM_BYTES else None
        if scanned is None:
            request = pb.ModelInferRequest.FromString(message)
            raw: Sequence[Buffer] = request.raw_input_contents
        else:
            request = pb.ModelInferRequest.FromString(scanned.rest)
            raw = scanned.raw
    except DecodeError as error:
        raise MalformedRequest("the message is not a ModelInferRequest") from error
    for what in ("inputs", "outputs", "parameters"):
        if len(getattr(request, what)) > MAX_PARTS:
            raise MalformedRequest(f"a request may have {MAX_PARTS} {what}, this one has more")
    if len(raw) > MAX_PARTS:
        raise MalformedRequest(f"a request may have {MAX_PARTS} raw_input_contents, this one has more")
    inputs = _with_raw(request, raw) if raw else tuple([_typed(tensor) for tensor in request.inputs])
    return Request(
        request.model_name,
        request.model_version,
        request.id,
        _parameters(request.parameters) if request.parameters else {},
        inputs,
        tuple(dict.fromkeys([_requested(output) for output in request.outputs])) if request.outputs else (),
    )


def _with_raw(request: pb.ModelInferRequest, raw: Sequence[Buffer]) -> tuple[Tensor, ...]:
    if len(raw) != len(request.inputs):
        raise MalformedRequest(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    inputs = []
    for tensor, data in zip(request.inputs, raw, strict=True):
        if tensor.HasField("contents"):
            raise MalformedRequest(f"input {tensor.name!r} has typed contents beside raw_input_contents")
        inputs.append(Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data))
    return tuple(inputs)


def _typed(tensor: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    """Return a tensor whose typed contents have become raw bytes."""
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
    contents = tensor.contents
    if datatype == BYTES:
        filled, expected = [f for f, _ in contents.ListFields()], "bytes_contents"
        data = b"".join([len(e).to_bytes(4, "little") + e for e in contents.bytes_contents])
    elif datatype in _CONTENTS:
        expected, dtype = _CONTENTS[datatype]
        filled = [f for f, _ in contents.ListFields()]
        try:
            data = np.array(getattr(contents, expected), dtype).tobytes()
        except OverflowError as error:
            raise MalformedRequest(f"input {name!r} holds a value that is no {datatype}") from error
    elif datatype in DATATYPES:
        raise MalformedRequest(f"input {name!r}: {datatype} has no typed contents, send raw_input_contents")
    else:
        return Tensor(name, datatype, shape, b"")  # the servable names what it expects
    wrong = [field.name for field in filled if field.name != expected]
    if wrong:
        raise MalformedRequest(f"input {name!r} is {datatype} and has {wrong[0]} instead of {expected}")
    if not filled and 0 not in shape:
        raise MalformedRequest(f"input {name!r} has no data: neither raw_input_contents nor contents")
    return Tensor(name, datatype, shape, data)


def _requested(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> str:
    """Return the name of a requested output, which must not ask for another form than its raw bytes."""
    for key in output.parameters:
        if key in _OTHER_FORMS:
            raise MalformedRequest(f"output {output.name!r}: parameter {key!r} is not offered")
    return output.name


def _parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for key, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is not None:
            found[key] = getattr(parameter, kind)
    return found


class _Scanned(NamedTuple):
    rest: bytes  # the message without field 7
    raw: list[Buffer]  # field 7, as views of the message


def _scan(message: memoryview) -> _Scanned | None:
    """Split a message; None where it is not plain enough to be sure that protobuf would read it the same."""
    rest: list[memoryview] = []
    raw: list[Buffer] = []
    at, end, kept = 0, len(message), 0
    try:
        while at < end:
            tag, body = _varint(message, at)
            kind = tag & 7
            if kind == 2:
                size, body = _varint(message, body)
                following = body + size
            elif kind == 0:
                _, following = _varint(message, body)
            elif kind in (1, 5):
                following = body + (8 if kind == 1 else 4)
            else:
                return None  # a group, or no wire type at all
            if following > end:
                return None
            if tag == _RAW_TAG:
                if message[at] != _RAW_TAG:
                    return None  # a tag in more bytes than it needs
                rest.append(message[kept:at])
                raw.append(message[body:following])
                kept = following
            at = following
    except IndexError:
        return None  # cut in a varint
    rest.append(message[kept:])
    return _Scanned(b"".join(rest), raw)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a varint and where it ends.

    Raises:
        IndexError: the message ends in it, or it has more than ten bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError("a varint is too long")


def varint(value: int) -> bytes:
    """Return the protobuf encoding of a non-negative integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class ResponseEncoder:
    """Encodes ModelInferResponse; keeps the headers of the shapes that it has seen."""

    def __init__(self) -> None:
        self._headers: dict[
            object, bytes
        ] = {}  # {(model, version, outputs' names, datatypes, shapes): encoded}

    def encode(self, reply: Reply) -> bytes:
        outputs = reply.outputs
        key = (reply.model, reply.version, tuple([tensor[:3] for tensor in outputs]))
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            header = self._headers[key] = _header(reply)
        parts: list[Buffer] = [header]
        if reply.call.request_id:
            id_ = reply.call.request_id.encode()
            parts += (b"\x1a", varint(len(id_)), id_)
        for tensor in outputs:
            parts += (b"\x32", varint(len(tensor.data)), tensor.data)
        return b"".join(parts)


def _header(reply: Reply) -> bytes:
    response = pb.ModelInferResponse(model_name=reply.model, model_version=reply.version)
    for tensor in reply.outputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response.SerializeToString()
