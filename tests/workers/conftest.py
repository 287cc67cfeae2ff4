"""Tiny models, made when a test asks for them, and sessions of them in this process."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wire.frames import ServableSpec
from workers.runtimes.runtime import open_runtime

ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


class Models:
    """Writes ONNX files. Inputs and outputs are given as {name: (datatype, shape)}."""

    def __init__(self, folder):
        self._folder = folder

    def write(self, nodes, inputs, outputs, constants=None, name="model"):
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info(n, ELEMENT_TYPES[d], s) for n, (d, s) in inputs.items()],
            [helper.make_tensor_value_info(n, ELEMENT_TYPES[d], s) for n, (d, s) in outputs.items()],
            [numpy_helper.from_array(array, key) for key, array in (constants or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        path = self._folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return str(path)

    def identity(self, datatype="FP32", shape=("n", 4)):
        return self.write(
            [helper.make_node("Identity", ["x"], ["y"])], {"x": (datatype, shape)}, {"y": (datatype, shape)}
        )

    def node(self, operator, inputs, outputs, constants=None, **attributes):
        """A model of one operator."""
        names = [*inputs, *(constants or {})]
        node = helper.make_node(operator, names, list(outputs), **attributes)
        return self.write([node], inputs, outputs, constants)

    def two_outputs(self):
        """s = a + b, d = a - b"""
        pair = {"a": ("FP32", ("n", 2)), "b": ("FP32", ("n", 2))}
        return self.write(
            [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sub", ["a", "b"], ["d"])],
            pair,
            {"s": ("FP32", ("n", 2)), "d": ("FP32", ("n", 2))},
        )

    def gemm(self, width=8):
        weights = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32)
        return self.write(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": ("FP32", ("n", width))},
            {"y": ("FP32", ("n", width))},
            {"w": weights},
            name="gemm",
        )


@pytest.fixture
def models(tmp_path):
    return Models(tmp_path)


@pytest.fixture(scope="session")
def runtimes():
    """Each runtime once: opening one imports its engine."""
    return {name: open_runtime(name) for name in ("onnxruntime", "openvino", "loopback")}


@pytest.fixture
def load(runtimes):
    sessions = []

    def load(runtime, path="", device=None, options=None, signature=None, count=1, width=1):
        device = device or ("openvino:CPU" if runtime == "openvino" else "cpu")
        spec = ServableSpec("m", "1", path, runtime, device, count, width, options or {}, signature=signature)
        session = runtimes[runtime].load(spec)
        sessions.append(session)
        return session

    yield load
    for session in sessions:
        session.close()
