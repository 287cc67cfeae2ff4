"""Small ONNX models, and what ONNX Runtime alone says to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ELEMENT_TYPES: Final = {
    "BOOL": TensorProto.BOOL, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32, "INT64": TensorProto.INT64, "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip
MLP_INPUTS: Final = 12


def affine(factor: float, width: int | str = 4) -> bytes:
    """y = x * factor + 1, FP32 [batch, width]."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "one"], ["y"]),
    ]
    weights = {"factor": np.array([factor], "<f4"), "one": np.array([1], "<f4")}
    return _model(nodes, [("x", "FP32", ["batch", width])], [("y", "FP32", ["batch", width])], weights)


def elementwise(datatype: str) -> bytes:
    """same = x, changed = some function of each element of x; [batch, width]."""
    operation = {"BOOL": ("Not", ["x"]), "BYTES": ("StringConcat", ["x", "x"])}
    name, operands = operation.get(datatype, ("Sign", ["x"]))
    nodes = [helper.make_node("Identity", ["x"], ["same"]), helper.make_node(name, operands, ["changed"])]
    shape = ["batch", "width"]
    return _model(
        nodes, [("x", datatype, shape)], [("same", datatype, shape), ("changed", datatype, shape)], {}, 20
    )


def mlp(seed: int) -> bytes:
    """Two layers with ReLU and softmax over [batch, 12], FP32."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((MLP_INPUTS, 32)).astype("<f4"),
        "b1": rng.standard_normal(32).astype("<f4"),
        "w2": rng.standard_normal((32, 5)).astype("<f4"),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]
    return _model(nodes, [("x", "FP32", ["batch", MLP_INPUTS])], [("y", "FP32", ["batch", 5])], weights)


def two_inputs() -> bytes:
    """sum = a + b (INT64 [batch, width]), mean = the mean of each row of c (FP64 [batch, length])."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("ReduceMean", ["c"], ["mean"], axes=[1], keepdims=1),
    ]
    inputs = [
        ("a", "INT64", ["batch", "width"]),
        ("b", "INT64", ["batch", "width"]),
        ("c", "FP64", ["batch", "length"]),
    ]
    return _model(nodes, inputs, [("sum", "INT64", ["batch", "width"]), ("mean", "FP64", ["batch", 1])], {})


def padded() -> bytes:
    """doubled = 2 x follows the padded axis, total = the sum of each row does not; FP32 [batch, length]."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=1),
    ]
    shape = ["batch", "length"]
    outputs = [("doubled", "FP32", shape), ("total", "FP32", ["batch", 1])]
    return _model(nodes, [("x", "FP32", shape)], outputs, {"axes": np.array([1], "<i8")})


def softmax_over_batch() -> bytes:
    """An answer that depends on its batch mates."""
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    return _model(nodes, [("x", "FP32", ["batch", 4])], [("y", "FP32", ["batch", 4])], {})


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, str, list[Any]]],
    outputs: Sequence[tuple[str, str, list[Any]]],
    weights: Mapping[str, np.ndarray],
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, ELEMENT_TYPES[kind], shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, ELEMENT_TYPES[kind], shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


class Alone:
    """ONNX Runtime in this process: one request at a time, nothing shared with the gateway."""

    def __init__(self, file: bytes) -> None:
        model = onnx.load_from_string(file)
        self._bfloat16 = [
            o.name for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.BFLOAT16
        ]
        for name in self._bfloat16:  # numpy cannot hold the type: the answer is compared as FP32
            model.graph.node.append(helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT))
            model.graph.output.append(
                helper.make_tensor_value_info(f"{name}_fp32", TensorProto.FLOAT, ["batch", "width"])
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the outputs. A BF16 input is given as its bits, and a BF16 output comes as FP32."""
        names = [f"{name}_fp32" if name in self._bfloat16 else name for name in outputs]
        if not self._bfloat16:
            return dict(zip(outputs, self._session.run(names, dict(inputs)), strict=True))
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, TensorProto.BFLOAT16)
            for name, array in inputs.items()
        }
        results = self._session.run_with_ort_values(names, values)
        return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}
