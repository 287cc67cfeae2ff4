"""Finding out, by running it, whether a model may be batched, and which output axes follow a padded input
axis.

A dynamic first dimension is no proof: softmax over axis 0 or dynamic quantisation make an answer depend on
its batch mates. The probe compares run(a + b) with run(a) and run(b) on generated inputs, b on another scale
than a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wire.datatypes import BYTES
from wire.frames import PadAxis, Probed, Signature, TensorSpec
from workers.runtimes.runtime import RunFailed, Session
from workers.tensors import NUMPY_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workers.runtimes.runtime import Array

# Sizes tried for dynamic dimensions other than the batch, until the model accepts one.
_SIZES = (8, 32, 64, 224, 1)
# Kernels may sum in another order for another batch size; what is above this is another answer.
_TOLERANCE = {"FP16": 1e-2, "BF16": 5e-2}
_DEFAULT_TOLERANCE = 1e-4
_ROUNDS = 3


class Collected:
    """Outputs kept in this process's own memory."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def allocate(self, name: str, datatype: str, shape: Sequence[int]) -> Array:
        self.arrays[name] = np.empty(shape, NUMPY_TYPES[datatype])
        return self.arrays[name]

    def put(self, name: str, datatype: str, array: Array) -> None:
        self.arrays[name] = np.array(array)


class Shapes(NamedTuple):
    """How to fill in dynamic dimensions: one size for all, except for the padded axes."""

    size: int
    pads: Mapping[tuple[str, int], int] = {}  # {(input, axis): size}


def generated(
    signature: Signature, rows: int, shapes: Shapes, seed: int, scale: float = 1.0
) -> dict[str, Array]:
    """Return inputs of `rows` rows. Whole numbers are 0 or 1, which every vocabulary and every flag has."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for spec in signature.inputs:
        shape = [
            (rows if axis == 0 else shapes.pads.get((spec.name, axis), shapes.size)) if size == -1 else size
            for axis, size in enumerate(spec.shape)
        ]
        inputs[spec.name] = _fill(spec, shape, rng, scale)
    return inputs


def _fill(spec: TensorSpec, shape: Sequence[int], rng: np.random.Generator, scale: float) -> Array:
    if spec.datatype == BYTES:
        array = np.empty(shape, object)
        array[...] = b"a"
        return array
    dtype = NUMPY_TYPES[spec.datatype]
    if spec.datatype == "BF16":
        return (
            (rng.standard_normal(shape).astype(np.float32) * np.float32(scale))
            .view(np.uint32)
            .__rshift__(16)
            .astype(dtype)
        )
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * scale).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def run(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a session on arrays of this process.

    Raises:
        RunFailed: the model failed.
    """
    outputs = Collected()
    session.run(inputs, (), outputs)
    return outputs.arrays


def accepted_shapes(session: Session, pads: Sequence[PadAxis]) -> tuple[Shapes, str]:
    """Return shapes that the model accepts with one row, or the last refusal as second item."""
    refusal = ""
    for size in _SIZES:
        shapes = Shapes(size, {(pad.input, pad.axis): size for pad in pads})
        try:
            run(session, generated(session.signature, 1, shapes, seed=0))
        except (RunFailed, ValueError, MemoryError) as error:
            refusal = refusal or str(error)
            continue
        return shapes, ""
    return Shapes(_SIZES[0]), refusal


def probe(session: Session, max_batch_size: int, declared: bool | None, pads: Sequence[PadAxis]) -> Probed:
    """Return whether the model may be batched, with the reason when not."""
    shapes, refusal = accepted_shapes(session, pads)
    follows = () if refusal or not pads else tuple(_followers(session, pads, shapes))
    if declared is False or max_batch_size <= 1:
        return Probed(
            False, "max_batch_size is 1" if declared is not False else "declared not batchable", follows
        )
    reason = _fixed_first_dimension(session.signature)
    if declared:  # against shapes that have no rows nothing can be declared
        return Probed(not reason, reason, follows)
    reason = reason or _different_names(session.signature)
    if not reason and refusal:
        reason = f"the probe's inputs were refused, declare `batchable` to batch: {refusal}"
    if not reason:
        reason = _mixing(session, shapes)
    return Probed(not reason, reason, follows)


def _fixed_first_dimension(signature: Signature) -> str:
    """Return why the shapes alone rule batching out, '' when they do not."""
    for spec in (*signature.inputs, *signature.outputs):
        if not spec.shape:
            return f"{spec.name} is a scalar"
        if spec.shape[0] != -1:
            return f"the first dimension of {spec.name} is fixed to {spec.shape[0]}"
    return ""


def _different_names(signature: Signature) -> str:
    """Return how the first dimensions are named differently, '' when they are not."""
    specs = (*signature.inputs, *signature.outputs)
    symbols = {spec.symbols[0] for spec in specs if spec.symbols and spec.symbols[0]}
    if len(symbols) > 1:
        return f"the first dimensions have different names: {', '.join(sorted(symbols))}"
    return ""


def _mixing(session: Session, shapes: Shapes) -> str:
    """Return how answers depend on batch mates, '' when they do not."""
    for seed in range(_ROUNDS):
        a = generated(session.signature, 1, shapes, seed=2 * seed + 1)
        b = generated(session.signature, 2, shapes, seed=2 * seed + 2, scale=10.0**seed)
        both = {name: np.concatenate([a[name], b[name]]) for name in a}
        try:
            together, alone_a, alone_b = run(session, both), run(session, a), run(session, b)
        except (RunFailed, ValueError) as error:
            return f"a batch was refused: {error}"
        for spec in session.signature.outputs:
            got, parts = together[spec.name], (alone_a[spec.name], alone_b[spec.name])
            if (
                any(p.shape[1:] != got.shape[1:] for p in parts)
                or len(got) != 3
                or [len(p) for p in parts] != [1, 2]
            ):
                return f"{spec.name} does not have one row for each input row"
            off = difference(got, np.concatenate(parts), spec.datatype)
            if off > _TOLERANCE.get(spec.datatype, _DEFAULT_TOLERANCE):
                return f"answers depend on batch mates: {spec.name} differs by {off:.1e} of its range"
    return ""


def difference(got: Array, expected: Array, datatype: str) -> float:
    """Return the largest difference as a share of the expected range; 1 for anything but equal texts, flags
    or integers.
    """
    if datatype == BYTES or (got.dtype.kind in "biu" and datatype != "BF16"):
        return 0.0 if np.array_equal(got, expected) else 1.0
    x, y = _numbers(got, datatype), _numbers(expected, datatype)
    if not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return 1.0
    finite = np.isfinite(y)
    if not finite.any():
        return 0.0
    return float(np.max(np.abs(x[finite] - y[finite])) / max(float(np.max(np.abs(y[finite]))), 1e-6))


def _numbers(array: Array, datatype: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _followers(session: Session, pads: Sequence[PadAxis], shapes: Shapes) -> Iterator[tuple[str, int, str]]:
    """Yield the output axes whose size is a padded input axis's size, seen by changing that size.

    One axis is changed at a time; where the model wants several of the same size, all of them at once.
    """
    sizes = {(pad.input, pad.axis): shapes.size for pad in pads}
    small = run(session, generated(session.signature, 1, shapes, seed=0))
    found: dict[tuple[str, int], str] = {}  # {(output, axis): input}
    together = False
    for pad in pads:
        larger = {**sizes, (pad.input, pad.axis): shapes.size * 2}
        grown = _grown(session, small, Shapes(shapes.size, larger))
        together = together or grown is None
        for key in grown or ():
            found.setdefault(key, pad.input)
    if together:
        every = dict.fromkeys(sizes, shapes.size * 2)
        for key in _grown(session, small, Shapes(shapes.size, every)) or ():
            found.setdefault(key, pads[0].input)
    for (name, axis), source in found.items():
        yield name, axis, source


def _grown(session: Session, small: Mapping[str, Array], shapes: Shapes) -> list[tuple[str, int]] | None:
    """Return the output axes, but the first, that are twice as large with these shapes; None when they are
    refused.
    """
    try:
        large = run(session, generated(session.signature, 1, shapes, seed=0))
    except (RunFailed, ValueError, MemoryError):
        return None
    return [
        (name, axis)
        for name, array in small.items()
        for axis in range(1, array.ndim)
        if array.shape[axis] == shapes.size and large[name].shape[axis] == shapes.size * 2
    ]
