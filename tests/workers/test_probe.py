from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from wire.frames import PadAxis, Signature, TensorSpec
from workers.probe import Shapes, accepted_shapes, difference, generated, probe
from workers.runtimes.runtime import RunFailed

FLOATS = ("FP32", ("n", 8))


class Function:
    """A session that is a Python function from arrays to arrays."""

    def __init__(self, function, inputs, outputs):
        self.signature = Signature(inputs, outputs)
        self._function = function

    def run(self, inputs, wanted, outputs):
        for spec, array in zip(self.signature.outputs, self._function(*inputs.values()), strict=True):
            outputs.put(spec.name, spec.datatype, array)

    def close(self):
        pass


def spec(name, *shape, datatype="FP32", symbols=()):
    return TensorSpec(name, datatype, shape, symbols)


def padded(*inputs):
    return [PadAxis(name, 1, 0.0) for name in inputs]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("datatype", ["FP32", "FP16", "INT64", "BOOL"])
def test_identity_is_batchable(models, load, runtime, datatype):
    assert probe(load(runtime, models.identity(datatype)), 8, None, ()).reason == ""


def test_bf16_and_texts_are_probed_too(models, load):
    assert probe(load("onnxruntime", models.identity("BF16")), 8, None, ()).batchable
    assert probe(load("onnxruntime", models.identity("BYTES")), 8, None, ()).batchable


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_matrix_product_is_batchable(models, load, runtime):
    assert probe(load(runtime, models.gemm()), 8, None, ()).batchable


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_softmax_over_the_batch_is_not_batchable(models, load, runtime):
    path = models.node("Softmax", {"x": FLOATS}, {"y": FLOATS}, axis=0)
    found = probe(load(runtime, path), 8, None, ())
    assert not found.batchable
    assert found.reason.startswith("answers depend on batch mates: y differs by ")


def test_softmax_over_a_row_is_batchable(models, load):
    path = models.node("Softmax", {"x": FLOATS}, {"y": FLOATS}, axis=1)
    assert probe(load("onnxruntime", path), 8, None, ()).batchable


def test_dynamic_quantisation_is_not_batchable(models, load, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantised = tmp_path / "int8.onnx"
    quantize_dynamic(models.gemm(64), quantised, weight_type=QuantType.QInt8)
    found = probe(load("onnxruntime", str(quantised)), 8, None, ())
    assert not found.batchable
    assert "answers depend on batch mates" in found.reason


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 8), "the first dimension of x is fixed to 1"), ((), "x is a scalar"), ((8,), "fixed to 8")],
)
def test_shapes_that_rule_batching_out(models, load, shape, reason):
    session = load("onnxruntime", models.identity("FP32", shape))
    for declared in (None, True):
        found = probe(session, 8, declared, ())
        assert not found.batchable
        assert reason in found.reason


def test_a_sum_over_the_batch_has_no_rows(models, load):
    path = models.node("ReduceSum", {"x": FLOATS}, {"y": ("FP32", ("k", 8))}, {"axes": np.array([0])})
    found = probe(load("onnxruntime", path), 8, None, ())
    assert found.reason in (
        "the first dimensions have different names: k, n",
        "the first dimension of y is fixed to 1",
    )


def test_differently_named_first_dimensions_need_a_declaration():
    both = Function(
        lambda a, b: (a, b),
        (spec("a", -1, 2, symbols=("n", "")), spec("b", -1, 2, symbols=("m", ""))),
        (spec("c", -1, 2), spec("d", -1, 2)),
    )
    assert probe(both, 8, None, ()).reason == "the first dimensions have different names: m, n"
    assert probe(both, 8, True, ()).batchable


@pytest.mark.parametrize(
    ("declared", "max_batch_size", "batchable", "reason"),
    [
        (True, 8, True, ""),
        (False, 8, False, "declared not batchable"),
        (True, 1, False, "max_batch_size is 1"),
        (None, 1, False, "max_batch_size is 1"),
        (None, 8, False, "answers depend on batch mates: OUTPUT0 differs by"),
    ],
)
def test_the_operators_word_is_not_probed(load, declared, max_batch_size, batchable, reason):
    session = load("loopback", options={"mixes_rows": True})
    found = probe(session, max_batch_size, declared, ())
    assert found.batchable is batchable
    assert found.reason.startswith(reason)


def test_rows_that_are_dropped_are_noticed():
    session = Function(lambda x: (x[:1],), (spec("x", -1, 2),), (spec("y", -1, 2),))
    assert probe(session, 8, None, ()).reason == "y does not have one row for each input row"


def test_a_model_that_refuses_a_batch_is_not_batchable():
    def one_row(x):
        if len(x) > 1:
            raise RunFailed("one at a time")
        return (x,)

    session = Function(one_row, (spec("x", -1, 2),), (spec("y", -1, 2),))
    assert probe(session, 8, None, ()).reason == "a batch was refused: one at a time"


def test_inputs_that_cannot_be_made_up_ask_for_a_declaration():
    def picky(x):
        raise RunFailed("want 77 columns")

    session = Function(picky, (spec("x", -1, -1),), (spec("y", -1, -1),))
    found = probe(session, 8, None, ())
    assert found.reason == "the probe's inputs were refused, declare `batchable` to batch: want 77 columns"
    assert probe(session, 8, True, ()).batchable


def test_sizes_are_tried_until_one_is_accepted(models, load):
    weights = np.zeros((64, 2), np.float32)
    path = models.node("MatMul", {"x": ("FP32", ("n", "k"))}, {"y": ("FP32", ("n", 2))}, {"w": weights})
    session = load("onnxruntime", path)
    assert accepted_shapes(session, ()) == (Shapes(64, {}), "")
    assert probe(session, 8, None, ()).batchable


def test_generated_inputs_are_the_same_every_time_and_of_every_datatype():
    datatypes = ("BOOL", "UINT8", "INT64", "FP16", "BF16", "FP64", "BYTES")
    signature = Signature(tuple(spec(name, -1, 3, -1, datatype=name) for name in datatypes), ())
    first = generated(signature, 2, Shapes(5), seed=3)
    second = generated(signature, 2, Shapes(5), seed=3)
    assert [array.shape for array in first.values()] == [(2, 3, 5)] * 7
    assert all(np.array_equal(first[name], second[name]) for name in datatypes)
    assert set(first["INT64"].ravel()) <= {0, 1}


# -- padding ---


def test_an_output_follows_the_padded_axis(models, load):
    session = load("onnxruntime", models.identity("FP32", ("n", "k")))
    assert probe(session, 8, None, padded("x")).follows == (("y", 1, "x"),)


def test_an_output_that_does_not_change_does_not_follow(models, load):
    path = models.node("ReduceMax", {"x": ("FP32", ("n", "k"))}, {"y": ("FP32", ("n", 1))}, axes=[1])
    assert probe(load("onnxruntime", path), 8, None, padded("x")).follows == ()


def test_every_following_axis_is_found():
    session = Function(
        lambda x: (x[:, :, None] * x[:, None, :],), (spec("x", -1, -1),), (spec("y", -1, -1, -1),)
    )
    assert probe(session, 8, None, padded("x")).follows == (("y", 1, "x"), ("y", 2, "x"))


def test_each_output_follows_its_own_input():
    session = Function(
        lambda a, b: (a * 2, b * 2),
        (spec("a", -1, -1), spec("b", -1, -1)),
        (spec("c", -1, -1), spec("d", -1, -1)),
    )
    assert probe(session, 8, None, padded("a", "b")).follows == (("c", 1, "a"), ("d", 1, "b"))


def test_inputs_of_one_common_size_are_padded_together(models, load):
    pair = {"ids": ("INT64", ("n", "k")), "mask": ("INT64", ("n", "k"))}
    nodes = [helper.make_node("Mul", ["ids", "mask"], ["y"])]
    session = load("onnxruntime", models.write(nodes, pair, {"y": ("INT64", ("n", "k"))}))
    assert probe(session, 8, None, padded("ids", "mask")).follows == (("y", 1, "ids"),)


def test_a_length_that_the_model_refuses_fails_no_load():
    def short(x):
        if x.shape[1] > 8:
            raise RunFailed("position 9 is not embedded")
        return (x,)

    session = Function(short, (spec("x", -1, -1),), (spec("y", -1, -1),))
    found = probe(session, 8, None, padded("x"))
    assert found.batchable
    assert found.follows == ()


# -- comparing ---


@pytest.mark.parametrize(
    ("got", "expected", "datatype", "is_same"),
    [
        ([1.0, 2.0], [1.0, 2.00001], "FP32", True),
        ([1.0, 2.0], [1.0, 2.1], "FP32", False),
        ([np.nan, 1.0], [np.nan, 1.0], "FP32", True),
        ([np.inf, 1.0], [1.0, 1.0], "FP32", False),
        ([np.nan], [np.nan], "FP32", True),
        ([], [], "FP32", True),
        ([1, 2], [1, 2], "INT64", True),
        ([1, 2], [1, 3], "INT64", False),
        ([True], [False], "BOOL", False),
        ([b"a"], [b"a"], "BYTES", True),
        ([b"a"], [b"b"], "BYTES", False),
    ],
)
def test_what_counts_as_the_same_answer(got, expected, datatype, is_same):
    dtype = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_, "BYTES": object}[datatype]
    off = difference(np.array(got, dtype), np.array(expected, dtype), datatype)
    assert (off < 1e-4) is is_same
