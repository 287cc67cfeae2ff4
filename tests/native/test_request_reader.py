"""The native reader of requests against the one in Python: whatever the bytes, both must say the same."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.frontend import codec
from gateway.frontend.codec import MalformedRequest, decode_request
from protos import inference_pb2 as pb
from wire.datatypes import BYTES, DATATYPES

try:
    from gateway import _native
except ImportError:
    if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
        raise
    pytest.skip("gateway._native is not built", allow_module_level=True)

CORPUS = Path(__file__).parents[2] / "native" / "fuzz" / "corpus" / "request"
untimed = settings(deadline=None)  # a loaded machine is no failure


def by_native(message: bytes, cuts: list[int]):
    try:
        model, version, id_, parameters, inputs, outputs = _native.read_request(message, cuts)
    except ValueError as error:
        return refusal(str(error))
    return model, version, id_, exact(parameters), [plain(*tensor) for tensor in inputs], outputs


def by_python(message: bytes):
    try:
        request = decode_request(message)
    except MalformedRequest as error:
        return refusal(str(error))
    inputs = [
        plain(name, datatype, shape, bytes(data), fits(datatype, shape, bytes(data)))
        for name, datatype, shape, data in request.inputs
    ]
    return (
        request.model,
        request.version,
        request.id,
        exact(request.parameters),
        inputs,
        list(request.outputs),
    )


def refusal(text):
    """What a caller is told, as far as it is defined."""
    # An output may have both; which of the two protobuf's map gives first is not defined.
    text = text.replace("'shared_memory_region' is not offered", "'classification' is not offered")
    # Which characters are printable depends on the version of Unicode, which Python and Rust each have.
    return "".join(c if c.isascii() else ascii(c)[1:-1] for c in text)


def exact(parameters):
    """Values with their types, and floats by their bits: 1 is not True, and a NaN is itself."""
    return {
        key: struct.pack("<d", value) if isinstance(value, float) else (type(value), value)
        for key, value in parameters.items()
    }


def plain(name, datatype, shape, data, elements_fit):
    if datatype == "FP32" and len(data) % 4 == 0:
        # Python's floats are doubles, on the way to which a signalling NaN becomes a quiet one.
        bits = np.frombuffer(data, "<u4").copy()
        bits[(bits & 0x7FFFFFFF) > 0x7F800000] |= 0x400000
        data = bits.tobytes()
    return name, datatype, shape, data, elements_fit


def fits(datatype, shape, data):
    """Whether BYTES data is exactly as many elements as the shape says."""
    if datatype != BYTES:
        return True
    if any(size < 0 for size in shape):
        return False
    at, found, count = 0, 0, math.prod(shape)
    while at + 4 <= len(data) and found < count:
        at += 4 + int.from_bytes(data[at : at + 4], "little")
        found += 1
    return at == len(data) and found == count


def check_same(message: bytes, cuts: list[int]):
    assert by_native(message, cuts) == by_python(message)


names = st.one_of(
    st.sampled_from(["", "x", "it's", 'a"b', 'it\'s a "b"', "\\\n\t\x00\x7f", "é中😀\u200b"]),
    st.text(max_size=6),
)
int64s = st.integers(-(2**63), 2**63 - 1)
sizes = st.one_of(st.integers(-1, 4), int64s)
cuts_ = st.lists(st.one_of(st.integers(0, 60), st.integers(0, 70_000)), max_size=12)
parameters_ = st.dictionaries(
    st.one_of(names, st.sampled_from(["classification", "shared_memory_region"])),
    st.one_of(
        st.none(),
        st.tuples(st.just("bool_param"), st.booleans()),
        st.tuples(st.just("int64_param"), int64s),
        st.tuples(st.just("uint64_param"), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("double_param"), st.floats()),
        st.tuples(st.just("string_param"), names),
    ),
    max_size=2,
)
CONTENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.one_of(st.integers(-130, 260), st.integers(-(2**31), 2**31 - 1)),
    "int64_contents": int64s,
    "uint_contents": st.one_of(st.integers(0, 70_000), st.integers(0, 2**32 - 1)),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=6),
}
FIELD = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
elements = st.lists(st.binary(max_size=5), max_size=4).map(
    lambda items: b"".join(len(item).to_bytes(4, "little") + item for item in items)
)
raw_data = st.one_of(
    st.binary(max_size=40), elements, st.sampled_from([200, 17_000, 40_000]).map(lambda n: b"\x03" * n)
)
UNKNOWN = [
    b"\xfa\x3f\x03abc",  # 127, length-delimited
    b"\xf0\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # 126, a varint of more than 64 bits
    b"\xf1\x3f" + bytes(8),  # 126, fixed64
    b"\xf5\x3f" + bytes(4),  # 126, fixed32
    b"\xf3\x3f\x3a\x01x\xf4\x3f",  # 126, a group with a field 7 of its own
    b"\x1b\x0a\x01\xff\x1c",  # 3, but a group
    b"\x18\x05",  # 3, but a varint
    b"\x38\x05",  # 7, but a varint
    b"\xba\x00\x01x",  # 7, its tag in more bytes than it needs
    b"\x3a\x81\x00x",  # 7, its length in more bytes than it needs
    b"\x7b" * 98 + b"\x7c" * 98,  # groups, about as deep as may be
]


def fill(target, parameters):
    for key, parameter in parameters.items():
        target[key].SetInParent()
        if parameter is not None:
            setattr(target[key], *parameter)


@st.composite
def tensors(draw, typed):
    datatype = draw(st.one_of(st.sampled_from(sorted(DATATYPES)), st.sampled_from(["", "FP8"])))
    tensor = pb.ModelInferRequest.InferInputTensor(
        name=draw(names), datatype=datatype, shape=draw(st.lists(sizes, max_size=3))
    )
    fill(tensor.parameters, draw(parameters_))
    if typed:
        fields = {FIELD.get(datatype, "int_contents")}
        if draw(st.integers(0, 9)) == 0:
            fields.add(draw(st.sampled_from(sorted(CONTENTS))))
        for field in fields:
            values = draw(st.lists(CONTENTS[field], min_size=draw(st.integers(0, 1)), max_size=4))
            getattr(tensor.contents, field).extend(values)
    return tensor


@st.composite
def requests(draw):
    """Encoded requests, most of them good; their fields in any order, and some in two parts."""
    typed = draw(st.booleans())
    inputs = draw(st.lists(tensors(typed), max_size=3))
    parts = [
        pb.ModelInferRequest(**{field: draw(names)}).SerializeToString()
        for field in draw(st.lists(st.sampled_from(["model_name", "model_version", "id"]), max_size=5))
    ]
    for tensor in inputs:
        first, second = pb.ModelInferRequest.InferInputTensor(), b""
        first.CopyFrom(tensor)
        if draw(st.integers(0, 3)) == 0:  # concatenated messages merge
            rest = draw(tensors(typed))
            second = rest.SerializeToString()
        encoded = first.SerializeToString() + second
        parts.append(b"\x2a" + codec.varint(len(encoded)) + encoded)
    count = len(inputs) if draw(st.integers(0, 9)) else draw(st.integers(0, 4))
    if not typed:
        parts += [
            pb.ModelInferRequest(raw_input_contents=[draw(raw_data)]).SerializeToString()
            for _ in range(count)
        ]
    for name in draw(st.lists(names, max_size=2)):
        request = pb.ModelInferRequest()
        output = request.outputs.add(name=name)
        if draw(st.integers(0, 3)) == 0:
            fill(output.parameters, draw(parameters_))
        parts.append(request.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):
        request = pb.ModelInferRequest()
        fill(request.parameters, draw(parameters_))
        parts.append(request.SerializeToString())
    parts += draw(st.lists(st.sampled_from(UNKNOWN), max_size=1))
    return b"".join(draw(st.permutations(parts)))


def seeds():
    return sorted(CORPUS.iterdir())


class TestReading:
    @pytest.mark.slow
    @untimed
    @given(requests(), cuts_)
    def test_requests_mean_the_same(self, message, cuts):
        check_same(message, cuts)

    @pytest.mark.slow
    @untimed
    @given(requests(), cuts_, st.data())
    def test_damaged_requests_mean_the_same(self, message, cuts, data):
        damaged = bytearray(message)
        for _ in range(data.draw(st.integers(0, 3))):
            if damaged:
                damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(
                    st.integers(0, 255)
                )
        check_same(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), cuts)

    @untimed
    @given(st.binary(max_size=100), cuts_)
    @example(b"", [])
    def test_garbage_means_the_same(self, garbage, cuts):
        check_same(garbage, cuts)

    @pytest.mark.parametrize("seed", seeds(), ids=lambda path: path.name)
    def test_corpus_means_the_same(self, seed):
        message = seed.read_bytes()
        for size in (1, 7, 1 << 30):
            check_same(message, list(range(0, min(len(message), 5000), size)))

    @untimed
    @given(st.sampled_from(seeds()), st.data())
    def test_damaged_corpus_means_the_same(self, seed, data):
        damaged = bytearray(seed.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(damaged)))
            damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        check_same(bytes(damaged), data.draw(cuts_))


class TestCorpus:
    def test_it_is_small(self):
        messages = [path.read_bytes() for path in seeds()]
        assert len(messages) < 60
        assert sum(map(len, messages)) < 100_000

    def test_seeds_are_what_their_names_say(self):
        assert {path.name for path in seeds() if isinstance(by_python(path.read_bytes()), str)} == {
            path.name for path in seeds() if path.name.startswith("bad-")
        }
