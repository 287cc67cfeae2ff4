"""A model whose answer is as easy to check as `affine`'s, and whose runs take a few milliseconds: something
is running whenever a worker is lost.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

_SIDE = 2048


def slow_affine(factor: float) -> bytes:
    """y = x * factor + 1 + (x first second) 0, FP32 [batch, 4]: what is multiplied by nothing takes the
    time.
    """
    rng = np.random.default_rng(1)
    weights = {
        "factor": np.array([factor], "<f4"),
        "one": np.array([1], "<f4"),
        "first": rng.random((4, _SIDE), "<f4") / _SIDE,
        "second": rng.random((_SIDE, _SIDE), "<f4") / _SIDE,
        "nothing": np.zeros((_SIDE, 4), "<f4"),
    }
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "one"], ["sum"]),
        helper.make_node("MatMul", ["x", "first"], ["wide"]),
        helper.make_node("MatMul", ["wide", "second"], ["wider"]),
        helper.make_node("MatMul", ["wider", "nothing"], ["zero"]),
        helper.make_node("Add", ["sum", "zero"], ["y"]),
    ]
    shape = ["batch", 4]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())
