import itertools

import numpy as np
import pytest

from bench.samples import Body, decode, difference, draw, request
from bench.scenario import IDENTITY, IMG, MAGIKA, MINILM, MODELS
from protos import inference_pb2 as pb


def response(*outputs):
    message = pb.ModelInferResponse()
    for name, array in outputs:
        message.outputs.add(name=name, datatype="FP32", shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return message


def test_a_framed_body_is_one_uncompressed_message():
    framed = Body(0, {}, b"x" * 258).framed()
    assert framed[:5] == b"\x00\x00\x00\x01\x02"
    assert framed[5:] == b"x" * 258


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_request_carries_each_input_raw_with_a_batch_axis_of_one(model):
    tensors = draw(model, length=12, seed=3)
    message = pb.ModelInferRequest.FromString(request(model, tensors))
    assert message.model_name == model.name
    for tensor, raw, spec in zip(message.inputs, message.raw_input_contents, model.inputs, strict=True):
        assert (tensor.name, tensor.datatype) == (spec.name, spec.datatype)
        assert tuple(tensor.shape) == (1, *(12 if size == -1 else size for size in spec.shape))
        assert raw == tensors[spec.name].tobytes()


def test_draws_repeat_for_a_seed_and_differ_between_seeds():
    one, again, other = (draw(MAGIKA, 0, seed)["bytes"] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_means_of_scaled_values_tell_one_sample_from_another():
    means = [float(draw(IMG, 0, seed)["INPUT0"].mean()) for seed in range(1, 7)]
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(means))


def test_integers_stay_in_their_range():
    for seed in range(20):
        tensors = draw(MINILM, 50, seed)
        assert tensors["input_ids"].min() >= 1000
        assert tensors["input_ids"].max() < 29000
        assert set(tensors["attention_mask"].ravel()) == {1}
        assert set(tensors["token_type_ids"].ravel()) == {0}


def test_an_answer_is_decoded_by_name():
    array = np.arange(16, dtype=np.float32).reshape(1, 16)
    decoded = decode(response(("OUTPUT0", array)).SerializeToString(), IDENTITY.outputs)
    assert np.array_equal(decoded["OUTPUT0"], array)


def test_an_answer_without_the_output_is_refused():
    with pytest.raises(ValueError, match="OUTPUT0"):
        decode(b"", IDENTITY.outputs)


def test_an_answer_without_raw_contents_is_refused():
    message = response(("OUTPUT0", np.zeros((1, 16), np.float32)))
    del message.raw_output_contents[:]
    with pytest.raises(ValueError, match="raw contents"):
        decode(message.SerializeToString(), IDENTITY.outputs)


@pytest.mark.parametrize(
    ("expected", "answer", "deviation"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 0.0], [0.0, -0.5], 0.5),
        ([99.0], [100.0], 0.01),
        ([1.0], [1.0, 1.0], float("inf")),
        ([1.0], [float("nan")], float("inf")),
    ],
)
def test_difference_is_relative_for_large_and_absolute_for_small_values(expected, answer, deviation):
    found = difference({"y": np.array(expected)}, {"y": np.array(answer)})
    assert found == pytest.approx(deviation)
