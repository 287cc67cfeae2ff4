import numpy as np
import pytest

from crossgate import InferResult, MalformedResponse
from protos import inference_pb2 as pb


def raw_answer():
    message = pb.ModelInferResponse(model_name="digits", model_version="2", id="r-1")
    message.parameters["note"].string_param = "hello"
    message.outputs.add(name="p", datatype="FP32", shape=[1, 2])
    message.outputs.add(name="label", datatype="BYTES", shape=[1])
    message.raw_output_contents.extend([b"\0\0\x80?\0\0\0@", b"\x03\0\0\0\xc3\xa9!"])
    return message


def test_a_raw_answer_is_read_whole():
    result = InferResult.from_message(raw_answer(), (("crossgate-revision", "17"),))
    assert (result.model, result.version, result.id, result.revision) == ("digits", "2", "r-1", 17)
    assert result.parameters == {"note": "hello"}
    assert result.datatypes == {"p": "FP32", "label": "BYTES"}
    np.testing.assert_array_equal(result["p"], np.array([[1, 2]], np.float32))
    assert result["label"].tolist() == [b"\xc3\xa9!"]
    assert result.as_strings("label").tolist() == ["é!"]
    assert list(result) == list(result.outputs) == ["p", "label"]
    assert len(result) == 2
    assert "p" in result
    assert "q" not in result


def test_a_typed_answer_is_read_too():
    message = pb.ModelInferResponse(model_name="mlserver")
    output = message.outputs.add(name="y", datatype="INT8", shape=[2])
    output.contents.int_contents.extend([-1, 1])
    assert InferResult.from_message(message)["y"].tolist() == [-1, 1]


def test_an_unknown_output_names_those_there_are():
    with pytest.raises(KeyError, match="there are p, label"):
        InferResult.from_message(raw_answer())["q"]


def test_only_bytes_are_strings():
    with pytest.raises(TypeError, match="'p' is FP32"):
        InferResult.from_message(raw_answer()).as_strings("p")


@pytest.mark.parametrize(
    ("trailers", "version", "revision"),
    [
        ((), "", None),
        ((("crossgate-version", "3"), ("crossgate-revision", "5")), "3", 5),
        ((("crossgate-revision", "many"),), "", None),
    ],
)
def test_version_and_revision_may_come_in_trailing_metadata(trailers, version, revision):
    result = InferResult.from_message(pb.ModelInferResponse(), trailers)
    assert (result.version, result.revision) == (version, revision)


def extra_raw(message):
    message.raw_output_contents.append(b"")


def missing_raw(message):
    del message.raw_output_contents[1]


def short_raw(message):
    message.raw_output_contents[0] = b"\0"


def same_name(message):
    message.outputs[1].name = "p"


def both_forms(message):
    message.outputs[0].contents.fp32_contents.append(1)


@pytest.mark.parametrize("damage", [extra_raw, missing_raw, short_raw, same_name, both_forms])
def test_a_malformed_answer_is_refused(damage):
    message = raw_answer()
    damage(message)
    with pytest.raises(MalformedResponse):
        InferResult.from_message(message)
