"""The two classifiers of the demonstration, trained on scikit-learn's bundled digits and exported to ONNX."""

from __future__ import annotations

import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

MODEL = "digits"
_DOCUMENT = """\
model: digits
instances:
  - {runtime: onnxruntime, device: cpu, threads: 1}
  - {runtime: openvino, device: "openvino:CPU", threads: 1}
batching: {max_batch_size: 64}
"""


class Classifier(NamedTuple):
    """A trained model: its ONNX file and what it says itself about each held-out digit."""

    name: str
    onnx: bytes
    predictions: npt.NDArray[np.int64]


class DigitsData(NamedTuple):
    """Held-out digits: float32 of shape [n, 64], and their labels."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def train() -> tuple[DigitsData, list[Classifier]]:
    """Return the held-out digits and both classifiers: logistic regression as version 1, a small network as
    version 2.
    """
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.astype(np.float32), labels, test_size=0.25, random_state=0, stratify=labels
    )
    models: list[tuple[str, Any]] = [
        ("logistic regression", make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))),
        (
            "neural network",
            make_pipeline(StandardScaler(), MLPClassifier((128, 64), max_iter=60, random_state=0)),
        ),
    ]
    classifiers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty epochs are enough here, convergence or not
        for name, model in models:
            model.fit(train_x, train_y)
            classifiers.append(Classifier(name, export(model), model.predict(test_x)))
    return DigitsData(test_x, test_y), classifiers


def export(model: Any) -> bytes:
    """Return a scikit-learn classifier as ONNX with one output, `probabilities`.

    OpenVINO has no `ai.onnx.ml` operators, so the graph may hold none: no ZipMap, no LinearClassifier, no
    Normalizer.
    """
    import onnx
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    exported = to_onnx(
        model,
        initial_types=[("image", FloatTensorType([None, 64]))],
        options={id(model): {"zipmap": False}},
        black_op={"LinearClassifier", "Normalizer", "Scaler"},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    extractor = onnx.utils.Extractor(exported)
    return bytes(extractor.extract_model(["image"], ["probabilities"]).SerializeToString())


def write_document(models: Path) -> None:
    folder = models / MODEL
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(_DOCUMENT)


def write_version(models: Path, version: str, onnx_bytes: bytes) -> None:
    """Write a version beside its place and move it there, as a deployment should."""
    draft = models / MODEL / f".{version}.draft"
    shutil.rmtree(models / MODEL / version, ignore_errors=True)
    draft.mkdir(parents=True, exist_ok=True)
    (draft / "model.onnx").write_bytes(onnx_bytes)
    os.rename(draft, models / MODEL / version)
