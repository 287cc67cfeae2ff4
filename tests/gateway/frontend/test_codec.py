"""The codec against protobuf itself: what it reads and writes must be what protobuf reads and writes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.call import Call, Reply, Tensor
from gateway.frontend import codec
from gateway.frontend.codec import MalformedRequest, ResponseEncoder, decode_request, varint
from protos import inference_pb2 as pb
from wire.datatypes import BYTES, DATATYPES, ELEMENT_SIZE_BYTES

TYPED = {
    "BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "<i1"), "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"), "INT64": ("int64_contents", "<i8"), "UINT8": ("uint_contents", "<u1"),
    "UINT16": ("uint_contents", "<u2"), "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"), "FP32": ("fp32_contents", "<f4"), "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", None),
}  # fmt: skip

untimed = settings(deadline=None)  # a loaded machine is no failure

names = st.text(max_size=8)
datatypes = st.sampled_from(sorted(DATATYPES))
shapes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
blobs = st.one_of(st.binary(max_size=40), st.integers(0, 400).map(bytes))
parameter_fields = st.one_of(
    st.tuples(st.just("bool_param"), st.booleans()),
    st.tuples(st.just("int64_param"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("uint64_param"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("double_param"), st.floats(allow_nan=False)),
    st.tuples(st.just("string_param"), names),
)


@st.composite
def raw_requests(draw):
    """Requests whose tensors are raw, whether or not they make sense to a model."""
    message = pb.ModelInferRequest(
        model_name=draw(names),
        model_version=draw(names),
        id=draw(names),
        raw_input_contents=draw(st.lists(blobs)),
    )
    for _ in message.raw_input_contents:
        message.inputs.add(name=draw(names), datatype=draw(datatypes), shape=draw(shapes))
    for name in draw(st.lists(names, max_size=3)):
        message.outputs.add(name=name)
    for key, (field, value) in draw(st.dictionaries(names, parameter_fields, max_size=3)).items():
        setattr(message.parameters[key], field, value)
    return message


unknown_fields = st.sampled_from(
    [
        b"\xfa\x3f\x03abc",  # 127, length-delimited
        b"\xf0\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # 126, the largest varint
        b"\xf1\x3f" + bytes(8),  # 126, fixed64
        b"\xf5\x3f" + bytes(4),  # 126, fixed32
        b"\xf3\x3f\xf4\x3f",  # 126, an empty group
        b"\xf3\x3f\x3a\x01x\xf4\x3f",  # 126, a group with a field 7 of its own
        b"\x38\x05",  # 7, but a varint
        b"\xba\x00\x01x",  # 7, its tag in more bytes than it needs
        b"\x3a\x81\x00x",  # 7, its length in more bytes than it needs
    ]
)


@pytest.fixture
def scanning(monkeypatch):
    """Read even the smallest message with the scanner for large ones."""
    monkeypatch.setattr(codec, "SCAN_FROM_BYTES", 0)


def by_scanner(message: bytes) -> codec.Request | None:
    """What the path for large messages makes of a message, None when it is malformed."""
    return _decoded(message, 0)


def by_protobuf(message: bytes) -> codec.Request | None:
    return _decoded(message, 1 << 62)


def _decoded(message: bytes, scan_from_bytes: int) -> codec.Request | None:
    before, codec.SCAN_FROM_BYTES = codec.SCAN_FROM_BYTES, scan_from_bytes
    try:
        request = decode_request(message)
    except MalformedRequest:
        return None
    finally:
        codec.SCAN_FROM_BYTES = before
    inputs = tuple([tensor._replace(data=bytes(tensor.data)) for tensor in request.inputs])
    return request._replace(inputs=inputs)


class TestRawRequests:
    @pytest.mark.slow
    @untimed
    @given(raw_requests())
    def test_everything_of_a_request_is_read(self, message):
        for request in (by_protobuf(message.SerializeToString()), by_scanner(message.SerializeToString())):
            assert request.model == message.model_name
            assert request.version == message.model_version
            assert request.id == message.id
            assert request.outputs == tuple(dict.fromkeys(output.name for output in message.outputs))
            assert request.parameters == {
                key: getattr(parameter, parameter.WhichOneof("parameter_choice"))
                for key, parameter in message.parameters.items()
            }
            assert request.inputs == tuple(
                Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)
                for tensor, data in zip(message.inputs, message.raw_input_contents, strict=True)
            )

    @pytest.mark.slow
    @untimed
    @given(raw_requests(), st.lists(unknown_fields, max_size=3), st.data())
    def test_scanner_and_protobuf_agree_on_fields_in_any_order(self, message, extra, data):
        parts = [
            pb.ModelInferRequest(**{field.name: value}).SerializeToString()
            for field, value in message.ListFields()
            if field.name in ("model_name", "model_version", "id")
        ]
        parts += [pb.ModelInferRequest(inputs=[t]).SerializeToString() for t in message.inputs]
        parts += [
            pb.ModelInferRequest(raw_input_contents=[r]).SerializeToString()
            for r in message.raw_input_contents
        ]
        encoded = b"".join(data.draw(st.permutations(parts + extra)))
        assert by_scanner(encoded) == by_protobuf(encoded)

    @pytest.mark.slow
    @untimed
    @given(raw_requests(), st.data())
    def test_scanner_and_protobuf_agree_on_damaged_messages(self, message, data):
        encoded = bytearray(message.SerializeToString())
        for _ in range(data.draw(st.integers(0, 3))):
            if encoded:
                encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
        encoded = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
        assert by_scanner(encoded) == by_protobuf(encoded)

    @untimed
    @given(st.binary(max_size=200))
    def test_scanner_and_protobuf_agree_on_garbage(self, garbage):
        assert by_scanner(garbage) == by_protobuf(garbage)

    @pytest.mark.parametrize("size_bytes", [codec.SCAN_FROM_BYTES - 64, codec.SCAN_FROM_BYTES, 1 << 20])
    def test_large_tensors_are_read_with_every_size(self, size_bytes):
        data = np.random.default_rng(0).bytes(size_bytes)
        message = pb.ModelInferRequest(id="7", raw_input_contents=[data, b"", data])
        for name in "abc":
            message.inputs.add(name=name, datatype="UINT8", shape=[size_bytes])
        request = decode_request(message.SerializeToString())
        assert [bytes(tensor.data) for tensor in request.inputs] == [data, b"", data]
        assert request.id == "7"

    def test_large_tensors_are_views_of_the_message(self):
        message = pb.ModelInferRequest(raw_input_contents=[bytes(codec.SCAN_FROM_BYTES)])
        message.inputs.add(name="x")
        encoded = message.SerializeToString()
        (tensor,) = decode_request(encoded).inputs
        assert isinstance(tensor.data, memoryview)
        assert tensor.data.obj is encoded

    @pytest.mark.parametrize("cut", range(1, 40))
    def test_large_message_cut_short_is_malformed_or_short_of_a_tensor(self, cut):
        message = pb.ModelInferRequest(
            model_name="m", raw_input_contents=[bytes(codec.SCAN_FROM_BYTES), b"end" * 8]
        )
        message.inputs.add(name="a")
        message.inputs.add(name="b")
        with pytest.raises(MalformedRequest):
            decode_request(message.SerializeToString()[:-cut])

    @pytest.mark.parametrize(("inputs", "raw"), [(0, 1), (1, 2), (2, 1), (3, 2)])
    @pytest.mark.usefixtures("scanning")
    def test_another_number_of_raw_contents_than_inputs_is_malformed(self, inputs, raw):
        message = pb.ModelInferRequest(raw_input_contents=[b"x"] * raw)
        for i in range(inputs):
            message.inputs.add(name=str(i))
        with pytest.raises(MalformedRequest, match=f"{raw} raw_input_contents for {inputs} inputs"):
            decode_request(message.SerializeToString())

    def test_name_that_is_not_utf8_is_malformed(self):
        with pytest.raises(MalformedRequest):
            decode_request(b"\x0a\x02\xff\xfe")

    @pytest.mark.parametrize("key", ["classification", "shared_memory_region"])
    def test_output_in_another_form_is_malformed(self, key):
        message = pb.ModelInferRequest()
        message.outputs.add(name="y").parameters[key].int64_param = 1
        with pytest.raises(MalformedRequest, match=f"'y'.*{key}"):
            decode_request(message.SerializeToString())


@st.composite
def typed_tensors(draw):
    """A datatype, its field, and values that fit."""
    datatype = draw(st.sampled_from(sorted(TYPED)))
    field, dtype = TYPED[datatype]
    if datatype == BYTES:
        elements = st.binary(max_size=12)
    elif datatype == "BOOL":
        elements = st.booleans()
    elif datatype.startswith("FP"):
        elements = st.floats(width=32 if datatype == "FP32" else 64, allow_nan=False)
    else:
        limits = np.iinfo(dtype)
        elements = st.integers(int(limits.min), int(limits.max))
    return datatype, field, draw(st.lists(elements, min_size=1, max_size=12))


def typed_request(datatype: str, shape: tuple[int, ...], **contents: list) -> bytes:
    message = pb.ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return message.SerializeToString()


class TestTypedRequests:
    @untimed
    @given(typed_tensors())
    def test_values_become_little_endian_bytes(self, tensor):
        datatype, field, values = tensor
        (decoded,) = decode_request(typed_request(datatype, (len(values),), **{field: values})).inputs
        if datatype == BYTES:
            expected = b"".join(len(value).to_bytes(4, "little") + value for value in values)
        else:
            expected = np.array(values, TYPED[datatype][1]).tobytes()
            assert len(decoded.data) == len(values) * ELEMENT_SIZE_BYTES[datatype]
        assert decoded == Tensor("x", datatype, (len(values),), expected)

    @untimed
    @given(datatypes, st.sampled_from(sorted({field for field, _ in TYPED.values()})))
    def test_values_in_the_field_of_another_datatype_are_malformed(self, datatype, field):
        assume(TYPED.get(datatype, ("", None))[0] != field)
        value = b"" if field == "bytes_contents" else 1
        with pytest.raises(MalformedRequest, match=f"'x'.*{datatype}"):
            decode_request(typed_request(datatype, (1,), **{field: [value]}))

    @pytest.mark.parametrize("datatype", ["INT8", "INT16", "UINT8", "UINT16"])
    @untimed
    @given(value=st.integers(0, 2**31 - 1), below=st.booleans())
    def test_value_out_of_range_is_malformed(self, datatype, value, below):
        limits = np.iinfo(TYPED[datatype][1])
        value = max(value, limits.max + 1)
        if below and limits.min < 0:
            value = -value - 1
        with pytest.raises(MalformedRequest, match=f"'x'.*{datatype}"):
            decode_request(typed_request(datatype, (1,), **{TYPED[datatype][0]: [value]}))

    @pytest.mark.parametrize("datatype", sorted(TYPED))
    def test_no_values_are_malformed_unless_the_shape_has_none(self, datatype):
        with pytest.raises(MalformedRequest, match="'x' has no data"):
            decode_request(typed_request(datatype, (2, 1)))
        assert decode_request(typed_request(datatype, (2, 0))).inputs[0].data == b""

    def test_raw_and_typed_contents_are_malformed_whichever_input_has_which(self):
        for typed_input in (0, 1):
            message = pb.ModelInferRequest(raw_input_contents=[b"", b""])
            for _ in range(2):
                message.inputs.add(name="x", datatype="FP32", shape=[0])
            message.inputs[typed_input].contents.fp32_contents.append(1)
            with pytest.raises(MalformedRequest, match="typed contents beside"):
                decode_request(message.SerializeToString())

    def test_datatype_that_the_protocol_does_not_know_is_left_to_the_model(self):
        (tensor,) = decode_request(typed_request("FP8", (1,), fp32_contents=[1.0])).inputs
        assert (tensor.datatype, tensor.data) == ("FP8", b"")


def reply_of(outputs: list[Tensor], *, model: str = "m", version: str = "1", id: str = "") -> Reply:
    call = Call(id=1, origin=None, model=model, inputs=(), arrived_ns=0, request_id=id)
    return Reply(call, model, version, 3, outputs)


outputs = st.lists(
    st.tuples(names, datatypes, st.lists(st.integers(0, 9), max_size=3)).map(
        lambda t: Tensor(t[0], t[1], tuple(t[2]), bytes(math.prod(t[2]) * ELEMENT_SIZE_BYTES.get(t[1], 4)))
    ),
    max_size=4,
)


class TestResponses:
    @untimed
    @given(names, names, names, outputs)
    def test_protobuf_reads_what_is_written(self, model, version, id, tensors):
        encoder = ResponseEncoder()
        for _ in range(2):  # the second time with the header that was kept
            response = pb.ModelInferResponse.FromString(
                encoder.encode(reply_of(tensors, model=model, version=version, id=id))
            )
            assert (response.model_name, response.model_version, response.id) == (model, version, id)
            assert [(t.name, t.datatype, tuple(t.shape)) for t in response.outputs] == [
                t[:3] for t in tensors
            ]
            assert list(response.raw_output_contents) == [bytes(tensor.data) for tensor in tensors]

    def test_replies_of_one_shape_keep_their_own_id_and_data(self):
        encoder = ResponseEncoder()
        for i in range(3):
            data = bytes([i] * 4)
            reply = reply_of([Tensor("y", "FP32", (1,), memoryview(data))], id=str(i))
            response = pb.ModelInferResponse.FromString(encoder.encode(reply))
            assert (response.id, response.raw_output_contents[0]) == (str(i), data)

    def test_more_shapes_than_are_kept_are_still_right(self, monkeypatch):
        monkeypatch.setattr(codec, "_MAX_HEADERS", 4)
        encoder = ResponseEncoder()
        for size in [*range(10), *range(10)]:
            reply = reply_of([Tensor("y", "UINT8", (size,), bytes(size))])
            response = pb.ModelInferResponse.FromString(encoder.encode(reply))
            assert list(response.outputs[0].shape) == [size]

    @untimed
    @given(st.integers(0, 2**64 - 1))
    def test_varint_is_protobufs(self, value):
        assert b"\x28" + varint(value) == (
            pb.InferParameter(uint64_param=value).SerializeToString() if value else b"\x28\x00"
        )
