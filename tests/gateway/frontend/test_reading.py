from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.frontend.codec import MalformedRequest, decode_request
from gateway.frontend.reading import RequestReader
from protos import inference_pb2 as pb


def message(data, *, model="m", id="", shape=(1, 4), extra=()):
    request = pb.ModelInferRequest(model_name=model, id=id)
    for i, raw in enumerate(data):
        request.inputs.add(name=f"x{i}", datatype="FP32", shape=shape)
        request.raw_input_contents.append(raw)
    for name in extra:
        request.outputs.add(name=name)
    return request.SerializeToString()


def plain(request):
    return request._replace(inputs=tuple(t._replace(data=bytes(t.data)) for t in request.inputs))


def test_second_of_a_kind_has_a_key_and_the_same_meaning():
    reader = RequestReader()
    first, second = message([b"a" * 16]), message([b"b" * 16])
    assert reader.read(first)[1] is None
    request, key = reader.read(second)
    assert key is not None
    assert plain(request) == plain(decode_request(second))
    assert reader.read(first)[1] is key


@pytest.mark.parametrize("size", [16, 20_000])
def test_several_tensors_keep_their_places(size):
    reader = RequestReader()
    reader.read(message([b"a" * size, b"b" * 8], shape=(1, size // 4)))
    request, key = reader.read(message([b"c" * size, b"d" * 8], shape=(1, size // 4)))
    assert key is not None
    assert [bytes(t.data) for t in request.inputs] == [b"c" * size, b"d" * 8]


def test_same_size_with_other_lengths_inside_is_read_anew():
    reader = RequestReader()
    reader.read(message([b"a" * 16, b"b" * 8]))
    other = message([b"a" * 8, b"b" * 16])
    request, key = reader.read(other)
    assert key is None
    assert [len(t.data) for t in request.inputs] == [8, 16]


def test_other_head_of_the_same_size_is_read_anew():
    reader = RequestReader()
    reader.read(message([b"a" * 16], model="m"))
    request, key = reader.read(message([b"a" * 16], model="n"))
    assert (request.model, key) == ("n", None)


def test_ids_that_never_repeat_are_not_remembered_for_ever():
    reader = RequestReader()
    for i in range(2000):
        request, _ = reader.read(message([b"a" * 16], id=f"{i:08}"))
        assert request.id == f"{i:08}"
    assert len(reader._layouts) <= 300


def test_typed_contents_are_never_remembered():
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(1.5)
    reader = RequestReader()
    for _ in range(3):
        assert reader.read(request.SerializeToString())[1] is None


@given(
    st.lists(
        st.tuples(st.sampled_from("mn"), st.sampled_from(["", "1", "22"]), st.binary(max_size=24)),
        max_size=12,
    )
)
def test_whatever_came_before_a_message_means_what_it_says(history):
    reader = RequestReader()
    for model, id_, data in history:
        one = message([data], model=model, id=id_)
        assert plain(reader.read(one)[0]) == plain(decode_request(one))


@given(st.binary(max_size=64))
def test_garbage_after_a_known_kind_is_decoded_as_garbage(tail):
    reader = RequestReader()
    known = message([b"a" * 16])
    reader.read(known)
    damaged = known[:-17] + tail
    try:
        expected = plain(decode_request(damaged))
    except MalformedRequest:
        with pytest.raises(MalformedRequest):
            reader.read(damaged)
    else:
        assert plain(reader.read(damaged)[0]) == expected
