"""Requests with known answers: one body per length for the load, and samples that are sent beside it and
decoded.

All requests of one length are the same bytes, so an answer given to the wrong caller would go unseen. The
samples therefore carry other inputs than the bodies, and their answers differ from each other by far more
than the tolerance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.scenario import Model, OutputSpec, Scenario

Tensors = dict[str, NDArray[Any]]  # {tensor name: array with a batch axis}
DTYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype(np.float32),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
}
SAMPLES_PER_LENGTH = 6


@dataclass(frozen=True)
class Sample:
    """A serialised ModelInferRequest and what ONNX Runtime alone, at batch 1, answers to it."""

    request: bytes
    expected: Tensors


@dataclass(frozen=True)
class Body:
    """What is sent under load: `inputs` at batch 1, and their serialised request."""

    length: int
    inputs: Tensors
    request: bytes

    def framed(self) -> bytes:
        """The request as one uncompressed gRPC message: flag, uint32 big-endian length, bytes."""
        return b"\0" + struct.pack(">I", len(self.request)) + self.request


@dataclass(frozen=True)
class Work:
    """A scenario with its files and requests."""

    scenario: Scenario
    models: Path  # holds <model>/1/model.onnx
    bodies: tuple[Body, ...]
    samples: tuple[Sample, ...]


class IndistinctSamples(Exception):
    """Two samples have answers so close that a mixed-up answer could pass: the check would prove nothing."""


def draw(model: Model, length: int, seed: int) -> Tensors:
    random = np.random.default_rng((seed, length))
    tensors: Tensors = {}
    for spec in model.inputs:
        shape = (1, *(length if size == -1 else size for size in spec.shape))
        dtype = DTYPES[spec.datatype]
        if dtype.kind == "f":
            scale = np.float32(1 + seed / 4 if spec.scaled else 1)
            tensors[spec.name] = (scale * random.random(shape, np.float32)).astype(dtype)
        else:
            high = (
                random.integers(spec.low, spec.high) + 1
            )  # a range of its own tells one sample from another
            tensors[spec.name] = random.integers(spec.low, high, shape).astype(dtype)
    return tensors


def request(model: Model, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    message = pb.ModelInferRequest(model_name=model.name, id="1")
    for spec in model.inputs:
        array = tensors[spec.name]
        message.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message.SerializeToString()


def decode(response: bytes, outputs: tuple[OutputSpec, ...]) -> Tensors:
    """Raises ValueError for an answer that is not a ModelInferResponse with raw contents of these outputs."""
    message = pb.ModelInferResponse.FromString(response)
    specs = {spec.name: spec for spec in outputs}
    if len(message.outputs) != len(message.raw_output_contents):
        raise ValueError(f"{len(message.outputs)} outputs, {len(message.raw_output_contents)} raw contents")
    tensors: Tensors = {}
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        dtype = DTYPES[specs[output.name].datatype]
        tensors[output.name] = np.frombuffer(raw, dtype).reshape(tuple(output.shape))
    if missing := specs.keys() - tensors.keys():
        raise ValueError(f"outputs missing: {sorted(missing)}")
    return tensors


def difference(expected: Mapping[str, NDArray[Any]], answer: Mapping[str, NDArray[Any]]) -> float:
    """The largest deviation |answer - expected| / (1 + |expected|) of any element; infinite if a shape
    differs."""
    worst = 0.0
    for name, wanted in expected.items():
        got = answer[name]
        if got.shape != wanted.shape:
            return float("inf")
        deviation = np.abs(got.astype(np.float64) - wanted) / (1 + np.abs(wanted))
        worst = max(
            worst, float(np.max(deviation, initial=0.0)) if np.isfinite(deviation).all() else float("inf")
        )
    return worst


def prepare(scenario: Scenario, models: Path) -> Work:
    """Draws the inputs and asks ONNX Runtime, alone and at batch 1, for the answers. Raises
    IndistinctSamples."""
    model = scenario.model
    bodies = []
    for length in scenario.lengths:
        inputs = draw(model, length, seed=0)
        bodies.append(Body(length, inputs, request(model, inputs)))
    session = _session(models / model.name / "1" / "model.onnx")
    samples = []
    for seed in range(1, SAMPLES_PER_LENGTH + 1):
        for length in scenario.lengths:
            inputs = draw(model, length, seed)
            names = [spec.name for spec in model.outputs]
            answers = dict(zip(names, session.run(names, inputs), strict=True))
            samples.append(Sample(request(model, inputs), answers))
    for index, one in enumerate(samples):
        for other in samples[:index]:
            if difference(one.expected, other.expected) <= 10 * model.tolerance:
                raise IndistinctSamples(model.name)
    return Work(scenario, models, tuple(bodies), tuple(samples))


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
