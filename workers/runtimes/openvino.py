"""OpenVINO's native API: IR (.xml) and ONNX files on CPU, GPU, NPU and AUTO.

Computes in f32 unless the model asks otherwise: the plug-in's own default is bfloat16 on some processors. The
process is pinned, not its threads. Options:
    precision: f32 (default), bf16 or f16.
    Any OpenVINO property in capitals, for example PERFORMANCE_HINT or CACHE_DIR.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from wire.datatypes import BYTES
from wire.frames import ServableSpec, Signature, TensorSpec
from workers.runtimes.runtime import LoadFailed, Outputs, RunFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workers.runtimes.runtime import Array

_DATATYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "bf16": "BF16",
    "f32": "FP32",
    "f64": "FP64",
    "string": BYTES,
}
_INT32 = np.iinfo(np.int32)
_PRECISIONS = ("f32", "bf16", "f16")


class OpenVino:
    def __init__(self) -> None:
        self._core = ov.Core()

    def load(self, spec: ServableSpec) -> OpenVinoSession:
        device = spec.device.removeprefix("openvino:")
        if device == spec.device:
            raise LoadFailed(f"openvino runs on openvino:CPU, openvino:GPU and so on, not on {spec.device}")
        here = self._core.available_devices
        if device != "AUTO" and device not in here and f"{device}.0" not in here:
            raise LoadFailed(f"OpenVINO has no device {device} here; it has {', '.join(here) or 'none'}")
        if not Path(spec.path).is_file():
            raise LoadFailed(f"{spec.path} is not a file", retryable=True)
        try:
            model = self._core.read_model(spec.path)
            compiled = self._core.compile_model(model, device, _properties(spec, device))
        except LoadFailed:
            raise
        except (
            Exception
        ) as error:  # the binding raises RuntimeError and its own types, all of them a failed load
            raise LoadFailed(str(error)) from error
        # with one thread infer() swallows errors and leaves the last run's outputs, seen with OpenVINO 2026.4
        hides_errors = device == "AUTO" or (
            device == "CPU" and compiled.get_property("INFERENCE_NUM_THREADS") == 1
        )
        return OpenVinoSession(compiled, spec.count, infer_hides_errors=hides_errors)


def _properties(spec: ServableSpec, device: str) -> dict[str, str | int | float | bool]:
    unknown = sorted(k for k in spec.options if k != "precision" and not k.isupper())
    if unknown:
        raise LoadFailed(
            f"unknown openvino options {', '.join(unknown)}; there are precision and OpenVINO's properties"
        )
    precision = str(spec.options.get("precision", "f32"))
    if precision not in _PRECISIONS:
        raise LoadFailed(f"precision {precision!r} is none of {', '.join(_PRECISIONS)}")
    properties: dict[str, str | int | float | bool] = {"INFERENCE_PRECISION_HINT": precision}
    if device == "CPU":
        properties |= {
            "INFERENCE_NUM_THREADS": spec.width * spec.count,
            "NUM_STREAMS": spec.count,
            "ENABLE_CPU_PINNING": False,
        }
    return properties | {k: v for k, v in spec.options.items() if k.isupper()}


def _spec(port: Any) -> TensorSpec:
    element = port.get_element_type().get_type_name()
    # the names are a set: the shortest, and of those the first, so that every process picks the same one
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    name = names[0] if names else port.get_node().get_friendly_name()
    if element not in _DATATYPES:
        raise LoadFailed(f"{name} is of type {element}, which no request can carry")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise LoadFailed(f"{name} is of dynamic rank, which no request can be checked against")
    return TensorSpec(
        name,
        _DATATYPES[element],
        tuple(-1 if d.is_dynamic else d.get_length() for d in shape),
        ("",) * len(shape),
    )


class OpenVinoSession:
    def __init__(self, compiled: Any, count: int, *, infer_hides_errors: bool) -> None:
        self._compiled = compiled
        self._infer_hides_errors = infer_hides_errors
        self.signature = Signature(
            inputs=tuple(_spec(p) for p in compiled.inputs),
            outputs=tuple(_spec(p) for p in compiled.outputs),
            platform="openvino_model",
        )
        texts = [spec.name for spec in self.signature.outputs if spec.datatype == BYTES]
        if texts:
            # infer() corrupts the heap when a text goes through to an output, seen with OpenVINO 2026.4
            raise LoadFailed(
                f"output {texts[0]} is of type string, which OpenVINO cannot be trusted to return"
            )
        self._element_types = [p.get_element_type() for p in compiled.inputs]
        # one infer request per concurrent run; the probe and the warm-up take one too
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count + 1):
            self._requests.put(compiled.create_infer_request())

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str], outputs: Outputs) -> None:
        request = self._requests.get()
        try:
            for i, spec in enumerate(self.signature.inputs):
                request.set_input_tensor(i, _tensor(inputs[spec.name], spec, self._element_types[i]))
            if self._infer_hides_errors:
                request.start_async()
                request.wait()
            else:
                request.infer()
            for i, spec in enumerate(self.signature.outputs):
                if not wanted or spec.name in wanted:
                    outputs.put(spec.name, spec.datatype, _array(request.get_output_tensor(i), spec.datatype))
        except RuntimeError as error:
            raise RunFailed(str(error)) from error
        finally:
            self._requests.put(request)

    def close(self) -> None:
        del self._requests, self._compiled


def _tensor(array: Array, spec: TensorSpec, element_type: Any) -> Any:
    datatype = spec.datatype
    if datatype == BYTES:
        if any(element.endswith(b"\0") for element in array.ravel().tolist()):
            # numpy's fixed-width texts, the only way in, drop it
            raise RunFailed(f"an element of {spec.name} ends in a NUL byte, which OpenVINO cannot be given")
        return ov.Tensor(array.astype(np.bytes_))
    if array.size == 0:
        return ov.Tensor(element_type, list(array.shape))
    if datatype == "INT64" and (array.min() < _INT32.min or array.max() > _INT32.max):
        raise RunFailed(f"{spec.name} holds a number of over 32 bits, and OpenVINO computes INT64 with 32")
    # A shared tensor refuses read-only arrays although inference only reads: make a view from the address.
    # The array, and with it the mapping, outlives the run.
    address = array.__array_interface__["data"][0]
    interface = {"data": (address, False), "shape": (array.nbytes,), "typestr": "|u1", "version": 3}
    raw = np.asarray(_Address(interface))
    if datatype in ("BF16", "BOOL"):
        return ov.Tensor(
            raw.view(np.uint16 if datatype == "BF16" else np.bool_), list(array.shape), element_type
        )
    return ov.Tensor(raw.view(array.dtype).reshape(array.shape), shared_memory=True)


class _Address:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _array(tensor: Any, datatype: str) -> Array:
    if datatype == "BF16":
        return np.asarray(tensor.data).view(np.uint16)
    return np.asarray(tensor.data)
