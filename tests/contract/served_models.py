"""The models that the contract tests are served from a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

# {datatype: numpy's little-endian type}; BF16 travels as the bits of uint16
NUMPY_TYPES: Final = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "BF16": "<u2", "FP32": "<f4",
    "FP64": "<f8",
}  # fmt: skip
DATATYPES: Final = (*NUMPY_TYPES, "BYTES")

SLOW_US: Final = 300_000
FAILS_ON: Final = 13
EXPANDS: Final = 1000
MAX_ROWS: Final = 4
QUEUE_SIZE: Final = 2
# y = x * version + 1
AFFINE_VERSIONS: Final = ("1", "2")
AFFINE_LABELS: Final = {"stable": "1", "canary": "2"}

Spec = tuple[str, str, list[int]]  # (name, datatype, shape)

UNBATCHED: Final = {"batchable": False, "max_batch_size": 1}


def write_models(root: Path) -> list[str]:
    """Write all models; return the names of those that become ready."""
    for version in AFFINE_VERSIONS:
        _write_affine(root / "affine" / version, float(version))
    _write_document(root / "affine", {"version_policy": {"all": True}, "labels": AFFINE_LABELS})
    for datatype in DATATYPES:
        write_loopback(root, f"echo_{datatype.lower()}", [("x", datatype, [-1, -1])], batching=UNBATCHED)
    write_loopback(root, "pair", [("numbers", "FP32", [2]), ("words", "BYTES", [-1])], batching=UNBATCHED)
    write_loopback(
        root,
        "rows",
        [("a", "INT32", [-1, 2]), ("b", "INT32", [-1, 1])],
        batching={"batchable": True, "max_batch_size": MAX_ROWS},
    )
    for name in ("counted", "failing"):
        write_loopback(
            root,
            name,
            [("x", "FP32", [-1, 1])],
            options={"fail_on": FAILS_ON},
            batching={
                "batchable": True,
                "max_batch_size": MAX_ROWS,
                "max_queue_delay_us": 400_000 if name == "counted" else 0,
            },
        )
    for name in ("slow", "slow_stream", "slow_timeout", "limited"):
        write_loopback(
            root,
            name,
            [("x", "FP32", [1])],
            options={"delay_us": SLOW_US if name != "limited" else SLOW_US // 3},
            batching=UNBATCHED | ({"max_queue_size": QUEUE_SIZE} if name == "limited" else {}),
        )
    write_loopback(root, "expanding", [("x", "FP32", [-1])], options={"expand": EXPANDS}, batching=UNBATCHED)
    write_loopback(root, "broken", [("x", "FP32", [1])], options={"load": "fail"}, labels={"next": "1"})
    return sorted(folder.name for folder in root.iterdir() if folder.name != "broken")


def write_loopback(root: Path, model: str, inputs: list[Spec], **document: object) -> None:
    """Write a model that answers input NAME as output NAME_out."""
    options = document.pop("options", {})
    (root / model / "1").mkdir(parents=True)
    _write_document(
        root / model,
        {
            "instances": [{"runtime": "loopback", "device": "cpu", "options": options}],
            "inputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in inputs],
            "outputs": [{"name": f"{n}_out", "datatype": d, "shape": s} for n, d, s in inputs],
            "warm_up": {"runs": 0},
            **document,
        },
    )


def _write_document(folder: Path, document: dict[str, object]) -> None:
    (folder / "model.yaml").write_text(yaml.safe_dump(document))


def _write_affine(folder: Path, factor: float) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "factor"], ["product"]),
            helper.make_node("Add", ["product", "one"], ["y"]),
        ],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(np.array([factor], "<f4"), "factor"),
            numpy_helper.from_array(np.array([1], "<f4"), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
