"""A runtime without a model: answers with its inputs. It measures the gateway alone and, with declared
faults, tests it.

Output i is input i, its last axis repeated `expand` times. Options:
    delay_us, delay_us_per_row: how long a run takes.
    expand: how many times larger an output is than its input.
    fail_on, crash_on, hang_on: a number; a run with it anywhere in its first input fails, kills the process,
    never ends. load: 'fail', 'crash' or 'hang' instead of loading; load_delay_us: how long loading takes.
    mixes_rows: true makes answers depend on batch mates, which a batchable probe must notice.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np

from wire.datatypes import BYTES
from wire.frames import ServableSpec, Signature, TensorSpec
from workers.runtimes.runtime import LoadFailed, Outputs, RunFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.runtimes.runtime import Array

_OPTIONS = frozenset(
    (
        "delay_us",
        "delay_us_per_row",
        "expand",
        "fail_on",
        "crash_on",
        "hang_on",
        "load",
        "load_delay_us",
        "mixes_rows",
    )
)
_DEFAULT_SIGNATURE = Signature(
    inputs=(TensorSpec("INPUT0", "FP32", (-1, -1), ("batch", "width")),),
    outputs=(TensorSpec("OUTPUT0", "FP32", (-1, -1), ("batch", "width")),),
    platform="crossgate_loopback",
)
_FOREVER_S = 1 << 30


class Loopback:
    def load(self, spec: ServableSpec) -> LoopbackSession:
        unknown = sorted(set(spec.options) - _OPTIONS)
        if unknown:
            raise LoadFailed(
                f"unknown loopback options {', '.join(unknown)}; there are {', '.join(sorted(_OPTIONS))}"
            )
        time.sleep(float(spec.options.get("load_delay_us", 0)) / 1e6)
        match spec.options.get("load", ""):
            case "fail":
                raise LoadFailed("declared to fail at load")
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(_FOREVER_S)
        return LoopbackSession(spec)


class LoopbackSession:
    def __init__(self, spec: ServableSpec) -> None:
        self.signature = spec.signature or _DEFAULT_SIGNATURE
        if len(self.signature.inputs) != len(self.signature.outputs):
            raise LoadFailed("loopback needs as many outputs as inputs")
        for given, answered in zip(self.signature.inputs, self.signature.outputs, strict=True):
            if given.datatype != answered.datatype:
                raise LoadFailed(
                    f"loopback cannot turn {given.datatype} {given.name} into {answered.datatype}"
                )
        options = spec.options
        self._delay_s = float(options.get("delay_us", 0)) / 1e6
        self._row_delay_s = float(options.get("delay_us_per_row", 0)) / 1e6
        self._expand = int(options.get("expand", 1))
        self._faults = {
            name: float(options[f"{name}_on"])
            for name in ("fail", "crash", "hang")
            if f"{name}_on" in options
        }
        self._mixes_rows = bool(options.get("mixes_rows", False))

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str], outputs: Outputs) -> None:
        first = inputs[self.signature.inputs[0].name]
        for fault, value in self._faults.items():
            if np.any(first.astype(np.float64) == value):
                self._fault(fault, value)
        delay_s = self._delay_s + self._row_delay_s * (len(first) if first.ndim else 1)
        if delay_s:
            time.sleep(delay_s)
        for given, answered in zip(self.signature.inputs, self.signature.outputs, strict=True):
            if wanted and answered.name not in wanted:
                continue
            array = inputs[given.name]
            if self._mixes_rows:
                array = (array + array.sum()).astype(array.dtype)
            if self._expand == 1 or array.ndim == 0:
                outputs.put(answered.name, answered.datatype, array)
                continue
            shape = (*array.shape[:-1], array.shape[-1] * self._expand)
            if answered.datatype == BYTES:
                outputs.put(answered.name, answered.datatype, np.tile(array, self._expand))
            else:
                into = outputs.allocate(answered.name, answered.datatype, shape)
                into.reshape(*array.shape[:-1], self._expand, array.shape[-1])[...] = array[
                    ..., np.newaxis, :
                ]

    def _fault(self, fault: str, value: float) -> None:
        if fault == "fail":
            raise RunFailed(f"declared to fail on {value:g}")
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(_FOREVER_S)

    def close(self) -> None:
        """Nothing is held."""
