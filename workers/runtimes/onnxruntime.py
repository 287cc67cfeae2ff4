"""ONNX Runtime: CPU, CUDA and TensorRT execution providers.

There is no silent fall-back: the provider that the session reports first must be the one asked for. Options:
    graph_optimization_level: disable, basic, extended or all (default).
    cpu_mem_arena: false returns memory to the system after each run (default true).
    provider: cuda (default) or tensorrt, on a CUDA device.
    gpu_mem_limit_bytes: a limit for the CUDA provider's arena.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from wire.datatypes import BYTES, ELEMENT_SIZE_BYTES
from wire.frames import ServableSpec, Signature, TensorSpec
from workers.runtimes.runtime import LoadFailed, Outputs, RunFailed
from workers.tensors import NUMPY_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.runtimes.runtime import Array

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}
_BF16_ELEMENT_TYPE = 16  # onnx.TensorProto.BFLOAT16
_OPTIONS = frozenset(("graph_optimization_level", "cpu_mem_arena", "provider", "gpu_mem_limit_bytes"))
_CUDA_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxRuntime:
    def __init__(self) -> None:
        ort.disable_telemetry_events()  # nothing of what is served here is anybody else's business

    def load(self, spec: ServableSpec) -> OnnxRuntimeSession:
        unknown = sorted(set(spec.options) - _OPTIONS)
        if unknown:
            raise LoadFailed(
                f"unknown onnxruntime options {', '.join(unknown)}; there are {', '.join(sorted(_OPTIONS))}"
            )
        if not Path(spec.path).is_file():
            raise LoadFailed(f"{spec.path} is not a file", retryable=True)
        provider, provider_options = _provider(spec)
        if provider != "CPUExecutionProvider" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
        try:
            session = ort.InferenceSession(
                spec.path, _session_options(spec), providers=[provider], provider_options=[provider_options]
            )
        except Exception as error:  # the binding raises many types, all of them a failed load
            raise LoadFailed(str(error)) from error
        session.disable_fallback()
        if session.get_providers()[0] != provider:
            raise LoadFailed(
                f"{provider} was asked for and the session runs on {session.get_providers()[0]}; "
                f"device {spec.device} or its libraries are not usable here"
            )
        return OnnxRuntimeSession(session)


def _provider(spec: ServableSpec) -> tuple[str, dict[str, str]]:
    cuda_only = sorted(spec.options.keys() & {"provider", "gpu_mem_limit_bytes"})
    if spec.device.startswith("cpu"):
        if cuda_only:
            raise LoadFailed(f"{', '.join(cuda_only)} is for a CUDA device, not for {spec.device}")
        return "CPUExecutionProvider", {}
    if not spec.device.startswith("cuda:"):
        raise LoadFailed(f"onnxruntime runs on cpu and cuda:N, not on {spec.device}")
    asked = str(spec.options.get("provider", "cuda"))
    if asked not in _CUDA_PROVIDERS:
        raise LoadFailed(f"provider {asked!r} is none of {', '.join(_CUDA_PROVIDERS)}")
    provider, here = _CUDA_PROVIDERS[asked], ort.get_available_providers()
    if provider not in here:
        raise LoadFailed(f"this onnxruntime has no {provider}; it has {', '.join(here)}")
    # CUDA_VISIBLE_DEVICES leaves exactly one device visible, whatever its number on the machine
    options = {"device_id": "0"}
    if "gpu_mem_limit_bytes" in spec.options:
        if asked != "cuda":
            raise LoadFailed(f"gpu_mem_limit_bytes is for provider cuda, not for {asked}")
        options["gpu_mem_limit"] = str(spec.options["gpu_mem_limit_bytes"])
    return provider, options


def _session_options(spec: ServableSpec) -> Any:
    level = str(spec.options.get("graph_optimization_level", "all"))
    if level not in _LEVELS:
        raise LoadFailed(f"graph_optimization_level {level!r} is none of {', '.join(_LEVELS)}")
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    options.intra_op_num_threads = spec.width
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = bool(spec.options.get("cpu_mem_arena", True))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _spec(argument: Any) -> TensorSpec:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        hint = "; export the classifier with zipmap off" if argument.type.startswith("seq(map") else ""
        raise LoadFailed(f"{argument.name} is {argument.type}, which no request can carry{hint}")
    shape = tuple(d if isinstance(d, int) and d >= 0 else -1 for d in argument.shape)
    symbols = tuple(d if isinstance(d, str) else "" for d in argument.shape)
    return TensorSpec(argument.name, datatype, shape, symbols)


class OnnxRuntimeSession:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.signature = Signature(
            inputs=tuple(_spec(a) for a in session.get_inputs()),
            outputs=tuple(_spec(a) for a in session.get_outputs()),
            platform="onnxruntime_onnx",
        )
        self._names = [o.name for o in self.signature.outputs]
        self._output_types = {o.name: o.datatype for o in self.signature.outputs}
        self._by_value = any(t.datatype == "BF16" for t in (*self.signature.inputs, *self.signature.outputs))
        self._text_inputs = [t.name for t in self.signature.inputs if t.datatype == BYTES]

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str], outputs: Outputs) -> None:
        names = list(wanted) or self._names
        if self._text_inputs:
            inputs = {**inputs, **{name: _texts(name, inputs[name]) for name in self._text_inputs}}
        try:
            if self._by_value:
                self._run_by_value(inputs, names, outputs)
                return
            results = self._session.run(names, inputs)
        except Exception as error:  # the binding raises many types, all of them a failed run
            raise RunFailed(str(error)) from error
        for name, result in zip(names, results, strict=True):
            outputs.put(name, self._output_types[name], result)

    def _run_by_value(self, inputs: Mapping[str, Array], names: list[str], outputs: Outputs) -> None:
        """Run through OrtValues, the only way in and out for BF16, which numpy cannot hold."""
        values = {
            spec.name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(inputs[spec.name]), _BF16_ELEMENT_TYPE
            )
            if spec.datatype == "BF16"
            else ort.OrtValue.ortvalue_from_numpy(inputs[spec.name])
            for spec in self.signature.inputs
        }
        for name, value in zip(names, self._session.run_with_ort_values(names, values), strict=True):
            datatype = self._output_types[name]
            if datatype != "BF16":
                outputs.put(name, datatype, value.numpy())
                continue
            shape = value.shape()
            size_bytes = int(np.prod(shape, dtype=np.int64)) * ELEMENT_SIZE_BYTES[datatype]
            raw = (ctypes.c_char * size_bytes).from_address(value.data_ptr())
            outputs.put(name, datatype, np.frombuffer(memoryview(raw), NUMPY_TYPES[datatype]).reshape(shape))

    def close(self) -> None:
        del self._session


def _texts(name: str, array: Array) -> Array:
    """ONNX strings are UTF-8."""
    texts = np.empty(array.size, object)
    try:
        texts[:] = [element.decode() for element in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise RunFailed(f"an element of {name} is not UTF-8, which ONNX strings must be: {error}") from error
    return texts.reshape(array.shape)
