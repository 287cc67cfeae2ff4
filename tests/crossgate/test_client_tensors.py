import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.utils import serialize_byte_tensor

from crossgate import MalformedResponse, Tensor
from crossgate.tensors import decode, encode

DATATYPES = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
quick = settings(deadline=None, max_examples=25, database=None)


class OnAnotherDevice:
    """An array-like that cannot be copied to the host."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("copy it to the host first")


def views(array):
    """The same elements in several memory layouts."""
    return [
        array,
        np.array(array, order="F"),
        np.stack([array, array], axis=-1)[..., 0],
        np.flip(np.flip(array).copy()),
    ]


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_survive_a_round_trip_in_any_layout_and_byte_order(datatype, order):
    dtype = np.dtype(DATATYPES[datatype])

    @quick
    @given(hnp.arrays(dtype, shapes))
    def round_trip(array):
        expected = array.astype(dtype.newbyteorder("<")).tobytes()
        for view in views(array.astype(dtype.newbyteorder(order))):
            tensor = encode("x", view)
            assert (tensor.datatype, tensor.shape, tensor.data) == (datatype, array.shape, expected)
        back = decode("x", datatype, array.shape, expected)
        assert back.dtype == dtype
        assert back.dtype.isnative
        np.testing.assert_array_equal(back, array)

    round_trip()


@quick
@given(hnp.arrays(np.uint16, shapes))
def test_bfloat16_keeps_every_bit(bits):
    array = bits.view(ml_dtypes.bfloat16)
    for view in views(array):
        assert encode("x", view) == Tensor("BF16", bits.shape, bits.astype("<u2").tobytes())
    back = decode("x", "BF16", bits.shape, bits.astype("<u2").tobytes())
    assert back.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(back.view(np.uint16), bits)


def test_bfloat16_is_bits_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    back = decode("x", "BF16", (2,), b"\x80\x3f\x00\x40")
    assert back.dtype == np.uint16
    assert back.tolist() == [0x3F80, 0x4000]


@quick
@given(hnp.arrays(np.object_, shapes, elements=st.binary(max_size=8) | st.text(max_size=8)))
def test_bytes_survive_a_round_trip(array):
    tensor = encode("x", array)
    assert tensor.datatype == "BYTES"
    back = decode("x", "BYTES", array.shape, tensor.data)
    assert back.shape == array.shape
    assert back.dtype == np.object_
    expected = [element.encode() if isinstance(element, str) else element for element in array.ravel()]
    assert back.ravel().tolist() == expected


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a", b"bcd"], dtype=np.object_),
        np.array([[b"a"], [b"bcd"]]),
        np.array(["ä", "bcd"], dtype=np.object_),
    ],
)
def test_bytes_are_framed_as_triton_frames_them(array):
    assert encode("x", array).data == serialize_byte_tensor(array).item()


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        ([[1, 2]], "INT64", (1, 2), np.array([1, 2], "<i8").tobytes()),
        ([1.5], "FP64", (1,), np.array([1.5], "<f8").tobytes()),
        ([True, False], "BOOL", (2,), b"\x01\x00"),
        (2.0, "FP64", (), np.array(2.0, "<f8").tobytes()),
        (np.float32(2), "FP32", (), np.array(2, "<f4").tobytes()),
        ("é", "BYTES", (), b"\x02\0\0\0\xc3\xa9"),
        ([b"a\0", "b"], "BYTES", (2,), b"\x02\0\0\0a\0\x01\0\0\0b"),
        (np.array(["a", "bc"]), "BYTES", (2,), b"\x01\0\0\0a\x02\0\0\0bc"),
        ([np.array(["a"]), np.array(["bc"])], "BYTES", (2, 1), b"\x01\0\0\0a\x02\0\0\0bc"),
        (([1.0, 2.0], (3.0, 4.0)), "FP64", (2, 2), np.array([1, 2, 3, 4], "<f8").tobytes()),
        ([np.zeros(2, np.float32)], "FP32", (1, 2), b"\0" * 8),
        (np.zeros((0, 3), np.int8), "INT8", (0, 3), b""),
    ],
)
def test_values_take_the_datatype_that_numpy_gives_them(value, datatype, shape, data):
    assert encode("x", value) == Tensor(datatype, shape, data)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ([[1, 2], [3]], ValueError, "inhomogeneous"),
        ([["a", "b"], ["c"]], ValueError, "ragged"),
        ([], ValueError, "empty list"),
        ([[], []], ValueError, "empty list"),
        (None, TypeError, "NoneType"),
        ({"a": 1}, TypeError, "dict"),
        ([None], TypeError, "no common datatype"),
        ([1, "a"], TypeError, "no common datatype"),
        (["a", 1], TypeError, "element 1 is a int"),
        (np.array([1, "a"], dtype=np.object_), TypeError, "element 0 is a int"),
        (np.zeros(2, np.complex64), TypeError, "complex64"),
        (np.zeros(2, "datetime64[s]"), TypeError, "datetime64"),
        (np.zeros(2, ml_dtypes.float8_e4m3), TypeError, "float8_e4m3"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, "mask"),
        (["\ud800"], ValueError, "element 0 is no valid text"),
        (OnAnotherDevice(), TypeError, "copy it to the host first"),
        (2**70, TypeError, "neither str nor bytes"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(value, error, says):
    with pytest.raises(error, match=says) as caught:
        encode("image", value)
    assert "'image'" in str(caught.value)


def test_a_prepared_tensor_is_sent_as_it_is():
    tensor = Tensor("BF16", (2,), b"\x80\x3f\x00\x40")
    assert encode("x", tensor) is tensor


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "error"),
    [
        ("FP8", (1,), b"\0", ValueError),
        ("FP32", (2,), b"\0" * 7, ValueError),
        ("FP32", (-1,), b"", ValueError),
        ("BYTES", (1,), b"\x02\0\0\0a", ValueError),
        ("UINT8", (1,), bytearray(1), TypeError),
    ],
)
def test_a_prepared_tensor_must_be_whole(datatype, shape, data, error):
    with pytest.raises(error):
        Tensor(datatype, shape, data)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "says"),
    [
        ("FP32", (2,), b"\0" * 4, "takes 8 bytes, but there are 4"),
        ("FP32", (2,), b"\0" * 12, "takes 8 bytes, but there are 12"),
        ("INT8", (-1,), b"", "negative dimension"),
        ("FP4", (1,), b"\0", "unknown datatype 'FP4'"),
        ("BYTES", (1,), b"\x05\0\0\0abc", "cut off"),
        ("BYTES", (1,), b"\x05\0", "length of BYTES element 0 is cut off"),
        ("BYTES", (2,), b"\x01\0\0\0a", "takes 2 elements, but there are 1"),
        ("BYTES", (0,), b"\x01\0\0\0a", "takes 0 elements, but there are 1"),
        ("BYTES", (-1,), b"", "negative dimension"),
    ],
)
def test_malformed_raw_data_is_refused_by_name(datatype, shape, raw, says):
    with pytest.raises(MalformedResponse, match=says) as caught:
        decode("probabilities", datatype, shape, raw)
    assert "'probabilities'" in str(caught.value)


def test_any_bit_makes_true():
    assert decode("x", "BOOL", (3,), b"\x00\x01\x80").tolist() == [False, True, True]
