"""Payloads of a load: what a file holds is sent as it is, or refused with the name of what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossgate.cli.payloads import PayloadInvalid, at_random, from_files, from_json, malformed_of, parse_shape
from crossgate.descriptions import ModelMetadata, TensorMetadata
from crossgate.request import InferRequest
from crossgate.tensors import RAW_DTYPES, encode
from protos import inference_pb2 as pb


def model(*inputs):
    tensors = tuple(TensorMetadata(name, datatype, shape) for name, datatype, shape in inputs)
    return ModelMetadata("m", ("1",), "onnx_onnxv1", tensors, ())


PIXELS = model(("pixels", "FP32", (-1, 3)))
PAIR = model(("ids", "INT64", (-1, -1)), ("mask", "BOOL", (-1, -1)))


@pytest.fixture
def save(tmp_path):
    def write(array, name="a.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return write


def sent(value, name="x"):
    tensor = encode(name, value)
    return tensor.datatype, tensor.shape, tensor.data


def test_the_name_may_be_left_out_where_there_is_one_input(save):
    array = np.array([[1.5, 2, 3]], np.float32)
    for prefix in ("", "pixels=", "pixels=@"):
        tensors = from_files([prefix + save(array)], PIXELS)
        assert sent(tensors["pixels"]) == ("FP32", (1, 3), array.tobytes())


def test_numbers_become_the_models_datatype_where_they_fit(save):
    ids, mask = save(np.array([[1, 2]], np.uint8), "ids.npy"), save(np.array([[0, 1]]), "mask.npy")
    tensors = from_files([f"mask={mask}", f"ids={ids}"], PAIR)
    assert sent(tensors["ids"]) == ("INT64", (1, 2), np.array([1, 2], "<i8").tobytes())
    assert sent(tensors["mask"]) == ("BOOL", (1, 2), b"\0\1")


def test_bfloat16_is_given_as_bits(save):
    tensors = from_files([save(np.array([0x3F80], np.uint16))], model(("x", "BF16", (-1,))))
    assert sent(tensors["x"]) == ("BF16", (1,), b"\x80\x3f")


@pytest.mark.parametrize(
    ("metadata", "array", "reason"),
    [
        (PIXELS, np.zeros((1, 4), np.float32), r"pixels has shape \[1, 4\], the model takes \[-1, 3\]"),
        (PIXELS, np.zeros(3, np.float32), r"shape \[3\]"),
        (PIXELS, np.zeros((1, 3), complex), "complex128 does not become FP32"),
        (model(("x", "INT64", (-1,))), np.array([1.5]), "float64 does not become INT64"),
        (model(("x", "UINT8", (-1,))), np.array([256]), "do not fit UINT8"),
        (model(("x", "INT8", (-1,))), np.array([-129]), "do not fit INT8"),
        (model(("x", "BOOL", (-1,))), np.array([2]), "do not fit BOOL"),
        (model(("x", "BYTES", (-1,))), np.array([2]), "takes BYTES"),
        (model(("x", "FP32", (-1,))), np.array(["a"]), "does not become FP32"),
        (model(("x", "BF16", (-1,))), np.array([1.0]), "uint16"),
    ],
)
def test_an_array_that_the_model_does_not_take_is_refused(save, metadata, array, reason):
    with pytest.raises(PayloadInvalid, match=reason):
        from_files([save(array)], metadata)


def test_inputs_that_are_missing_unknown_or_given_twice_are_named(save):
    file = save(np.zeros((1, 1), np.int64))
    cases = {
        ("ids=" + file,): "no file for input mask",
        ("ids=" + file, "idz=" + file): "unknown input 'idz'; the model takes ids, mask",
        ("ids=" + file, "ids=" + file): "ids is given twice",
        (file,): "say NAME=FILE",
    }
    for texts, reason in cases.items():
        with pytest.raises(PayloadInvalid, match=reason):
            from_files(list(texts), PAIR)


def test_files_that_are_no_arrays_are_refused(tmp_path, save):
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "many.npz", a=np.zeros(1), b=np.zeros(1))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    cases = {"nowhere.npy": "there is no file", "text.npy": "is no .npy file", "many.npz": "several arrays"}
    cases["objects.npy"] = "is no .npy file"  # it would have to be unpickled
    for name, reason in cases.items():
        with pytest.raises(PayloadInvalid, match=reason):
            from_files([str(tmp_path / name)], PIXELS)


def read(tmp_path, document):
    path = tmp_path / "request.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return from_json(path, "m", "2")


def tensor(datatype="FP32", shape=(1, 2), data=(1, 2), **more):
    return {"name": "x", "datatype": datatype, "shape": list(shape), "data": list(data), **more}


def test_json_in_the_protocols_form_is_a_request(tmp_path):
    document = {
        "id": "seven",
        "parameters": {"priority": 1},
        "inputs": [tensor(data=[[1, 2.5]]), {**tensor("BYTES", [2], ["a", "\u00e9"]), "name": "t"}],
        "outputs": [{"name": "y"}],
    }
    (request,) = read(tmp_path, document)
    message = request.to_message()
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "seven")
    assert message.parameters["priority"].int64_param == 1
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("x", "FP32", [1, 2]),
        ("t", "BYTES", [2]),
    ]
    assert message.raw_input_contents[0] == np.array([1, 2.5], "<f4").tobytes()
    assert message.raw_input_contents[1] == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"
    assert [output.name for output in message.outputs] == ["y"]


def test_a_list_of_requests_is_several(tmp_path):
    requests = read(tmp_path, [{"inputs": [tensor(data=[n, n])]} for n in range(3)])
    assert [request.inputs["x"].tolist() for request in requests] == [[[n, n]] for n in range(3)]


def test_no_elements_are_a_tensor_too(tmp_path):
    (request,) = read(tmp_path, {"inputs": [tensor("INT64", [0, 2], [])]})
    assert sent(request.inputs["x"]) == ("INT64", (0, 2), b"")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no request"),
        ({}, "inputs"),
        ({"input": []}, "inputs"),
        ({"inputs": [], "model": "m"}, "unknown field 'model'"),
        ({"inputs": [tensor(), tensor()]}, "x is given twice"),
        ({"inputs": [{"name": "x"}]}, "name, datatype, shape, data"),
        ({"inputs": [tensor(sahpe=[1])]}, "name, datatype, shape, data"),
        ({"inputs": [tensor(data=[1])]}, r"1 elements, but shape \[1, 2\] has 2"),
        ({"inputs": [tensor(shape=[-1, 2])]}, "shape is a list"),
        ({"inputs": [tensor("FP31")]}, "unknown datatype 'FP31'"),
        ({"inputs": [tensor("INT64", data=[1, 1.5])]}, "does not become INT64"),
        ({"inputs": [tensor("UINT8", data=[1, 256])]}, "do not fit UINT8"),
        ({"inputs": [tensor("INT64", data=[1, 2**70])]}, "x: "),
        ({"inputs": [tensor(data=["a", "b"])]}, "does not become FP32"),
        ({"inputs": [tensor(data=[None, 1])]}, "does not become FP32"),
        ({"inputs": [tensor("BYTES")]}, "texts"),
        ({"inputs": [tensor("BF16")]}, "no form in JSON"),
        ({"inputs": [tensor()], "outputs": ["y"]}, "outputs"),
    ],
)
def test_json_of_another_form_is_refused(tmp_path, document, reason):
    with pytest.raises(PayloadInvalid, match=reason):
        read(tmp_path, document)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(PayloadInvalid, match=r"there is no file .*nowhere"):
        from_json(tmp_path / "nowhere.json", "m", "")


@pytest.mark.parametrize("datatype", [*RAW_DTYPES, "BYTES"])
def test_every_datatype_can_be_drawn(datatype):
    tensors = at_random(model(("x", datatype, (-1, 3))), {})
    assert sent(tensors["x"])[:2] == (datatype, (1, 3))
    again = at_random(model(("x", datatype, (-1, 3))), {})
    assert sent(tensors["x"]) == sent(again["x"])


def test_variable_dimensions_other_than_the_batch_must_be_given():
    with pytest.raises(PayloadInvalid, match="--shape ids:1,8"):
        at_random(PAIR, {})
    tensors = at_random(PAIR, {"ids": (2, 5), "mask": (2, 5)})
    assert [np.shape(array) for array in tensors.values()] == [(2, 5), (2, 5)]
    with pytest.raises(PayloadInvalid, match=r"pixels has shape \[1, 4\]"):
        at_random(PIXELS, {"pixels": (1, 4)})
    with pytest.raises(PayloadInvalid, match="unknown input 'pixel'"):
        at_random(PIXELS, {"pixel": (1, 3)})


def test_shapes_are_read_with_the_last_colon():
    assert parse_shape("a:b:1,2") == ("a:b", (1, 2))
    for wrong in ("a", "a:", ":1", "a:1,x", "a:-1"):
        with pytest.raises(PayloadInvalid, match="NAME:SIZE"):
            parse_shape(wrong)


def test_malformed_requests_differ_from_the_good_one_in_one_thing():
    good = InferRequest("m", {"x": np.zeros((1, 2), np.float32)}).to_message()
    short, unknown, cut = malformed_of(good)
    assert len(pb.ModelInferRequest.FromString(short).raw_input_contents[0]) == 7
    assert pb.ModelInferRequest.FromString(unknown).inputs[0].name == "x-unknown"
    assert cut == good.SerializeToString()[:-1]
    assert len(good.raw_input_contents[0]) == 8, "the good one is as it was"


def test_a_request_of_empty_tensors_has_no_byte_to_lose():
    empty = InferRequest("m", {"x": np.zeros((0, 2), np.float32)}).to_message()
    assert len(malformed_of(empty)) == 2
