"""ONNX Runtime's CUDA provider, where there is a device for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wire.frames import ServableSpec
from workers.probe import run
from workers.runtimes.runtime import open_runtime

HAS_GPU = any(Path("/dev").glob("nvidia[0-9]*"))


@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA device and onnxruntime-gpu; /dev/nvidia* shows none")
def test_session_on_cuda_runs_there_and_answers_as_the_cpu_does(tmp_path):
    onnx = pytest.importorskip("onnx")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 4]) for n in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Exp", ["x"], ["y"])], "exp", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    session = open_runtime("onnxruntime").load(
        ServableSpec("exp", "1", str(path), "onnxruntime", "cuda:0", count=1, width=1)
    )
    inputs = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_allclose(run(session, {"x": inputs})["y"], np.exp(inputs), rtol=1e-5)
    assert session._session.get_providers()[0] == "CUDAExecutionProvider"
    session.close()
