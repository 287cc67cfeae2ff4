"""The seam that every runtime fills."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from wire.frames import ServableSpec, Signature

    Array = npt.NDArray[np.generic]


class LoadFailed(Exception):
    """A model cannot be loaded here. `retryable` where the cause may pass by itself."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class RunFailed(Exception):
    """The model's own failure, in the runtime's words."""


class Outputs(Protocol):
    """Where a session puts its results: memory that the gateway reads."""

    def allocate(self, name: str, datatype: str, shape: Sequence[int]) -> Array:
        """Return a writable array (BF16 as uint16) of this shape, to be filled before `run` returns.

        Raises:
            OutputTooLarge: it can never fit.
        """
        ...

    def put(self, name: str, datatype: str, array: Array) -> None:
        """Copy an array of numbers (BF16 as uint16) or, for BYTES, of `bytes` and `str` objects."""
        ...


class Session(Protocol):
    """A loaded model. `run` may be called from as many threads at once as the spec's `count` says."""

    signature: Signature

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str], outputs: Outputs) -> None:
        """Compute the wanted outputs (all when empty). Inputs are read-only views that die with the call:
        numbers as numpy arrays, BF16 as uint16, BYTES as object arrays of `bytes`.

        Raises:
            RunFailed: the model failed.
        """
        ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """One inference engine."""

    def load(self, spec: ServableSpec) -> Session:
        """Return a session of `spec.path` that runs on `spec.device` with `spec.width` threads and nowhere
        else.

        Raises:
            LoadFailed: with the reason.
        """
        ...


_MODULES = {
    "onnxruntime": ("workers.runtimes.onnxruntime", "OnnxRuntime", "onnxruntime"),
    "openvino": ("workers.runtimes.openvino", "OpenVino", "openvino"),
    "loopback": ("workers.runtimes.loopback", "Loopback", ""),
}


def runtimes_here() -> dict[str, str]:
    """Return {runtime: 'installed' or 'unavailable: why'} without importing any of them."""
    found = {}
    for name, (_, _, needs) in _MODULES.items():
        there = not needs or importlib.util.find_spec(needs) is not None
        found[name] = "installed" if there else f"unavailable: the Python package {needs} is not installed"
    return found


def open_runtime(name: str) -> Runtime:
    """Return the runtime of this name, importing its engine.

    Raises:
        LoadFailed: unknown, or its engine cannot be imported.
    """
    if name not in _MODULES:
        raise LoadFailed(f"unknown runtime {name!r}; there are {', '.join(sorted(_MODULES))}")
    module, class_name, needs = _MODULES[name]
    try:
        return getattr(importlib.import_module(module), class_name)()  # type: ignore[no-any-return]  # by table
    except ImportError as error:
        raise LoadFailed(f"runtime {name} is not usable here: {error}; install {needs}") from error
