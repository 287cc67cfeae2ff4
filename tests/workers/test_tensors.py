from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.datatypes import DATATYPES, ELEMENT_SIZE_BYTES
from workers.tensors import NUMPY_TYPES, join_bytes, read, split_bytes


def test_every_datatype_has_its_size():
    assert set(NUMPY_TYPES) == set(ELEMENT_SIZE_BYTES) == DATATYPES - {"BYTES"}
    assert {name: dtype.itemsize for name, dtype in NUMPY_TYPES.items()} == dict(ELEMENT_SIZE_BYTES)


def test_numbers_are_a_view_and_not_a_copy():
    data = bytearray(8)
    array = read("UINT16", (2, 2), memoryview(data).toreadonly())
    data[0] = 7
    assert array[0, 0] == 7
    assert not array.flags.writeable


@pytest.mark.parametrize("size", [0, 4, 7, 9, 16])
def test_bytes_that_do_not_make_the_shape_are_refused(size):
    with pytest.raises(ValueError, match=r".+"):
        read("FP32", (1, 2), memoryview(bytes(size)))


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_texts_round_trip(elements):
    assert split_bytes(memoryview(join_bytes(elements))) == elements
    assert read("BYTES", (len(elements),), memoryview(join_bytes(elements))).tolist() == elements


@given(st.binary(max_size=40))
def test_broken_texts_are_a_value_error(data):
    try:
        elements = split_bytes(memoryview(data))
    except ValueError:
        return
    assert join_bytes(elements) == data


def test_str_elements_become_utf8():
    assert join_bytes(["é"]) == b"\x02\0\0\0" + "é".encode()


def test_texts_keep_their_shape():
    array = read("BYTES", (2, 1), memoryview(join_bytes([b"a", b"b"])))
    assert array.shape == (2, 1)
    assert array.dtype == np.object_
