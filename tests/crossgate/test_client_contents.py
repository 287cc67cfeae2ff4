import numpy as np
import pytest

from crossgate import MalformedResponse
from crossgate.contents import decode_contents
from protos import inference_pb2 as pb

CASES = [
    ("BOOL", "bool_contents", [True, False], np.bool_),
    ("INT8", "int_contents", [-128, 127], np.int8),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1], np.int16),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1], np.int32),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1], np.int64),
    ("UINT8", "uint_contents", [0, 255], np.uint8),
    ("UINT16", "uint_contents", [0, 2**16 - 1], np.uint16),
    ("UINT32", "uint_contents", [0, 2**32 - 1], np.uint32),
    ("UINT64", "uint64_contents", [0, 2**64 - 1], np.uint64),
    ("FP32", "fp32_contents", [1.5, float("inf")], np.float32),
    ("FP64", "fp64_contents", [0.1, -0.0], np.float64),
    ("BYTES", "bytes_contents", [b"a\0", b""], np.object_),
]


@pytest.mark.parametrize(("datatype", "field", "elements", "dtype"), CASES)
def test_each_datatype_is_read_from_its_field(datatype, field, elements, dtype):
    contents = pb.InferTensorContents(**{field: elements})
    array = decode_contents("y", datatype, (2, 1), contents)
    assert array.dtype == dtype
    assert array.shape == (2, 1)
    assert array.ravel().tolist() == elements


@pytest.mark.parametrize(("datatype", "field", "elements", "dtype"), CASES)
def test_an_empty_tensor_needs_no_contents(datatype, field, elements, dtype):
    array = decode_contents("y", datatype, (0, 3), pb.InferTensorContents())
    assert array.shape == (0, 3)
    assert array.dtype == dtype


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "says"),
    [
        ("FP16", (1,), {}, "typed contents cannot hold"),
        ("BF16", (1,), {}, "typed contents cannot hold"),
        ("FP4", (1,), {}, "typed contents cannot hold"),
        ("FP32", (1,), {"fp64_contents": [1.0]}, "contents are in fp64_contents"),
        ("FP32", (3,), {"fp32_contents": [1.0]}, "takes 3 elements, but there are 1"),
        ("FP32", (-1,), {"fp32_contents": [1.0]}, "negative dimension"),
        ("INT8", (1,), {"int_contents": [128]}, "does not fit INT8"),
        ("UINT16", (1,), {"uint_contents": [2**16]}, "does not fit UINT16"),
    ],
)
def test_malformed_contents_are_refused_by_name(datatype, shape, contents, says):
    with pytest.raises(MalformedResponse, match=says) as caught:
        decode_contents("y", datatype, shape, pb.InferTensorContents(**contents))
    assert "'y'" in str(caught.value)
