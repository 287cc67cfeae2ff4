import numpy as np
import pytest

from crossgate import InferRequest
from crossgate.headers import merge_headers
from crossgate.parameters import decode_parameters, encode_parameters


def test_every_argument_reaches_the_message():
    message = InferRequest(
        "digits",
        {"b": np.ones((1, 2), np.float32), "a": ["x"]},
        version="2",
        outputs=("p", "q"),
        request_id="r-1",
        parameters={"sequence_id": 7},
        priority=3,
    ).to_message()
    assert (message.model_name, message.model_version, message.id) == ("digits", "2", "r-1")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in message.inputs] == [
        ("b", "FP32", [1, 2]),
        ("a", "BYTES", [1]),
    ]
    assert list(message.raw_input_contents) == [b"\0\0\x80?" * 2, b"\x01\0\0\0x"]
    assert not any(tensor.HasField("contents") for tensor in message.inputs)
    assert [output.name for output in message.outputs] == ["p", "q"]
    assert message.parameters["sequence_id"].int64_param == 7
    assert message.parameters["priority"].uint64_param == 3


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": ""}, ValueError, "model must not be empty"),
        ({"model": None}, TypeError, "model must be text"),
        ({"version": 2}, TypeError, "version must be text"),
        ({"request_id": 2}, TypeError, "request_id must be text"),
        ({"inputs": [1.0]}, TypeError, "inputs must map"),
        ({"inputs": {1: [1.0]}}, TypeError, "input's name"),
        ({"outputs": "probabilities"}, TypeError, "outputs must be a sequence"),
        ({"outputs": (1,)}, TypeError, "output's name"),
        ({"priority": -1}, ValueError, "priority"),
        ({"priority": "high"}, TypeError, "priority"),
        ({"priority": 1, "parameters": {"priority": 2}}, ValueError, "twice"),
        ({"parameters": {"a": None}}, TypeError, "'a' is a NoneType"),
        ({"parameters": {"a": 2**64}}, ValueError, "'a'"),
        ({"parameters": {1: 1}}, TypeError, "parameter's name"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, says):
    with pytest.raises(error, match=says):
        InferRequest(**{"model": "m", "inputs": {}} | arguments).to_message()


def test_parameters_survive_a_round_trip():
    parameters = {"b": True, "i": -(2**63), "u": 2**64 - 1, "f": 0.5, "s": "text"}
    encoded = encode_parameters(parameters)
    assert [encoded[name].WhichOneof("parameter_choice") for name in parameters] == [
        "bool_param",
        "int64_param",
        "uint64_param",
        "double_param",
        "string_param",
    ]
    assert decode_parameters(encoded) == parameters


def test_numpy_scalars_are_parameters():
    assert decode_parameters(
        encode_parameters({"b": np.bool_(True), "i": np.int8(3), "f": np.float32(0.5)})
    ) == {"b": True, "i": 3, "f": 0.5}


def test_later_metadata_wins_and_keys_become_lower_case():
    assert merge_headers({"X-User": "a", "x-bin": b"\xff"}, None, {"x-user": "b"}) == (
        ("x-user", "b"),
        ("x-bin", b"\xff"),
    )


@pytest.mark.parametrize("metadata", [{"x": 1}, {"x": b"a"}, {"x-bin": "a"}, [("x", "a")]])
def test_metadata_that_cannot_be_sent_is_refused(metadata):
    with pytest.raises(TypeError, match="metadata"):
        merge_headers(metadata)
