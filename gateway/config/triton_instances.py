"""Instances of a Triton configuration: `instance_group`, and the parameters of the two back ends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from gateway.config.device import parse_device
from gateway.config.wording import join, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.triton_fields import Findings
    from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

_GRAPH_LEVELS: Final = {-1: "basic", 1: "extended", 2: "disable"}  # ONNX Runtime back end's README; 0 = all
_THREADS: Final = {"onnxruntime": "intra_op_thread_count", "openvino": "INFERENCE_NUM_THREADS"}
_PASSED_ON: Final = ("PERFORMANCE_HINT", "NUM_STREAMS")  # OpenVINO properties under their own names
_YES: Final = ("YES", "1", "TRUE")


class TritonInstances:
    """One reading. Groups of the same device become one instance whose count is their sum."""

    def __init__(self, config: ModelConfig, runtime: str | None, found: Findings) -> None:
        self._config = config
        self._runtime = runtime
        self._found = found
        self._options: dict[str, str | bool] = {}
        self._threads: int | None = None
        self._openvino_device = "openvino:CPU"
        self._graph_levels: dict[int, str] = _GRAPH_LEVELS if runtime == "onnxruntime" else {}

    def read(self) -> list[dict[str, Any]]:
        """Empty leaves the choice to what serves, as a configuration without groups and parameters does."""
        for name in sorted(self._config.parameters):
            self._read_parameter(name, self._config.parameters[name].string_value.strip())
        self._read_graph_level()
        if self._runtime is None:
            if self._config.instance_group and not (self._config.backend or self._config.platform):
                self._found.refuse("backend", "is missing; expected onnxruntime or openvino")
            return []
        counts: dict[str, int] = {}  # {device: count}
        for i, group in enumerate(self._config.instance_group):
            for device in self._devices(f"instance_group[{i}]", group):
                counts[device] = counts.get(device, 0) + (group.count or 1)
        if not counts and not self._config.instance_group:
            if self._runtime == "openvino":  # an ONNX file alone would be taken for ONNX Runtime's
                counts[self._openvino_device] = 1
            elif self._options or self._threads:
                counts["cpu"] = 1
                self._found.ignore("instance_group", "is missing: cpu is taken for the parameters")
        return [self._instance(device, count) for device, count in counts.items()]

    def _instance(self, device: str, count: int) -> dict[str, Any]:
        instance: dict[str, Any] = {"runtime": self._runtime, "device": device, "count": count}
        if self._threads:
            instance["threads"] = self._threads
        if self._options:
            instance["options"] = dict(self._options)
        return instance

    def _devices(self, at: str, group: ModelInstanceGroup) -> Iterator[str]:
        kind = type(group).Kind.Name(group.kind)
        if self._runtime == "openvino":
            if group.kind == group.KIND_GPU or group.gpus:
                message = (
                    'expected KIND_CPU; the parameter TARGET_DEVICE, such as "GPU", names OpenVINO\'s device'
                )
                self._found.refuse(f"{at}.{'kind' if group.kind == group.KIND_GPU else 'gpus'}", message)
            yield self._openvino_device
        elif group.kind == group.KIND_CPU:
            if group.gpus:
                self._found.refuse(f"{at}.gpus", "expected KIND_GPU with gpus, got KIND_CPU")
            yield "cpu"
        elif group.gpus:
            yield from (f"cuda:{gpu}" for gpu in group.gpus)
        else:
            device = "cuda:0" if group.kind == group.KIND_GPU else "cpu"
            message = f"{kind} names no device: {device} is taken; list gpus for others"
            self._found.ignore(f"{at}.kind", message)
            yield device

    def _read_graph_level(self) -> None:
        level = self._config.optimization.graph.level
        if level in self._graph_levels:
            self._options["graph_optimization_level"] = self._graph_levels[level]
        elif level or (self._config.optimization.HasField("graph") and not self._graph_levels):
            self._found.ignore(
                "optimization.graph.level", "is ignored: ONNX Runtime has the levels -1, 1 and 2"
            )

    def _read_parameter(self, name: str, value: str) -> None:
        at = join("parameters", name)
        if self._runtime is not None and name == _THREADS.get(self._runtime):
            if not re.fullmatch(r"[0-9]{1,4}", value):
                self._found.refuse(at, f"expected a number of threads, got {quote(value)}")
            else:
                self._threads = int(value) or None  # 0 = the runtime's default
        elif self._runtime == "onnxruntime" and name == "enable_mem_arena":
            self._options["cpu_mem_arena"] = value.upper() in _YES
        elif self._runtime == "openvino":
            self._read_openvino_parameter(at, name, value)
        else:
            self._found.ignore(at, "is ignored: no runtime here reads it")

    def _read_openvino_parameter(self, at: str, name: str, value: str) -> None:
        match name:
            case "TARGET_DEVICE":
                self._read_target_device(at, value)
            case "HINT_BF16" if value.upper() in _YES:
                self._options["precision"] = "bf16"
            case "RESHAPE_IO_LAYERS" if value.upper() in _YES:
                self._found.refuse(at, "cannot be honoured: models keep the shapes of their file")
            case "CPU_EXTENSION_PATH":
                self._found.refuse(at, "cannot be honoured: custom operator libraries are not loaded")
            case _ if name in _PASSED_ON:
                self._options[name] = value
            case "HINT_BF16" | "RESHAPE_IO_LAYERS":
                pass  # NO is how it is here
            case _:
                self._found.ignore(at, "is ignored: it is not known here")

    def _read_target_device(self, at: str, value: str) -> None:
        try:
            self._openvino_device = str(parse_device(f"openvino:{value}"))
        except ValueError:
            self._found.refuse(at, f"expected CPU, GPU, GPU.1, NPU or AUTO, got {quote(value)}")
