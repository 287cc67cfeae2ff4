"""Reads a Triton `config.pbtxt` as the data of a Model document, and names everything that it cannot honour.

Decisions where the two differ:
- `max_batch_size` N > 0 with `dynamic_batching` declares the model batchable. Without it the document says
  `auto`: Triton too enables dynamic batching for these runtimes where it completes a configuration, and here
  a probe makes sure that batch mates cannot change answers.
- `max_batch_size` 0 with tensors given means that no dimension is a batch. With neither (the format cannot
  tell 0 from absent) batching is left to the probe, as Triton leaves it to auto-completion.
- Instances of no named device (KIND_AUTO, KIND_MODEL, or KIND_GPU without `gpus`) get one, with a warning.
- A queue limit below `max_batch_size` is raised to it; a queue holds at least one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.config.document import Batching
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.triton_fields import Findings, sweep
from gateway.config.triton_instances import TritonInstances
from gateway.config.wording import did_you_mean, quote

if TYPE_CHECKING:
    from protos.model_config_pb2 import ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput

_RUNTIMES = {  # {back end or platform: runtime}
    "onnxruntime": "onnxruntime",
    "onnxruntime_onnx": "onnxruntime",
    "openvino": "openvino",
}
_RUNTIME_OF_SUFFIX = {"onnx": "onnxruntime", "xml": "openvino"}
_DEFAULT_MAX_QUEUE_SIZE = Batching().max_queue_size


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """`refused` would change answers: the model must not be served. `ignored` is worth a warning each."""

    data: dict[str, object] = field(default_factory=dict)  # for `validate`
    refused: tuple[Problem, ...] = ()
    ignored: tuple[Problem, ...] = ()
    model_filename: str | None = None  # of every version; None = the runtime's usual name

    @property
    def unsupported(self) -> tuple[Problem, ...]:
        return self.refused + self.ignored


def read_config_pbtxt(text: str, *, runtime: str | None = None) -> TritonConfig:
    """What the configuration says, in the fields of a Model document.

    `runtime` is what the files of the model's directory call for, where the configuration names no back end.
    Raises DocumentInvalid, with line and column, for text that is no ModelConfig.
    """
    from google.protobuf import text_format

    from protos.model_config_pb2 import ModelConfig

    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        what = " ".join(str(error).split()).removeprefix(f"{line}:{column} : ")
        what = what.encode(errors="backslashreplace").decode()  # it repeats the text
        raise DocumentInvalid([Problem("", f"line {line}, column {column}: {what}")]) from None
    return _Reading(config, runtime).result()


class _Reading:
    def __init__(self, config: ModelConfig, runtime: str | None) -> None:
        self._config = config
        self._found = Findings()
        self._runtime = self._read_runtime() or runtime

    def result(self) -> TritonConfig:
        data: dict[str, object] = {}
        if self._config.name:
            data["model"] = self._config.name
        data |= self._version_policy() | self._batching() | self._tensors()
        instances = TritonInstances(self._config, self._runtime, self._found).read()
        if instances:
            data["instances"] = instances
        if self._config.model_warmup:
            data["warm_up"] = {"runs": sum(max(1, one.count) for one in self._config.model_warmup)}
        sweep(self._config, self._found)
        filename = self._config.default_model_filename or None
        return TritonConfig(data, tuple(self._found.refused), tuple(self._found.ignored), filename)

    def _read_runtime(self) -> str | None:
        config = self._config
        runtimes = []
        for name in ("backend", "platform"):
            asked = getattr(config, name)
            if asked and asked not in _RUNTIMES:
                hint = did_you_mean(asked, _RUNTIMES)
                self._found.refuse(name, f"expected onnxruntime or openvino, got {quote(asked)}{hint}")
            elif asked:
                runtimes.append(_RUNTIMES[asked])
        if len(set(runtimes)) > 1:
            self._found.refuse("platform", f"expected the one of backend {quote(config.backend)}")
        suffix = config.default_model_filename.rpartition(".")[2]
        return runtimes[0] if runtimes else _RUNTIME_OF_SUFFIX.get(suffix)

    def _version_policy(self) -> dict[str, object]:
        policy = self._config.version_policy
        match policy.WhichOneof("policy_choice"):
            case "latest":
                return {"version_policy": {"latest": policy.latest.num_versions or 1}}
            case "all":
                return {"version_policy": {"all": True}}
            case "specific":
                return {
                    "version_policy": {"specific": [str(version) for version in policy.specific.versions]}
                }
        return {}

    def _batching(self) -> dict[str, object]:
        config = self._config
        batching: dict[str, Any] = {}
        rest: dict[str, object] = {}
        if config.max_batch_size < 0:
            self._found.refuse("max_batch_size", f"expected 0 or more, got {config.max_batch_size}")
        elif config.max_batch_size:
            batching["max_batch_size"] = config.max_batch_size
        elif config.input or config.output:
            batching |= {"batchable": False, "max_batch_size": 1}
        if config.HasField("dynamic_batching"):
            if config.max_batch_size > 0:
                batching["batchable"] = True
            rest = self._dynamic_batching(config.dynamic_batching, batching)
        if batching.get("max_batch_size", 1) > batching.get("max_queue_size", _DEFAULT_MAX_QUEUE_SIZE):
            batching["max_queue_size"] = batching["max_batch_size"]
        return ({"batching": batching} if batching else {}) | rest

    def _dynamic_batching(self, dynamic: ModelDynamicBatching, batching: dict[str, Any]) -> dict[str, object]:
        rest: dict[str, object] = {}
        queue = dynamic.default_queue_policy
        at = "dynamic_batching.default_queue_policy"
        if dynamic.max_queue_delay_microseconds:
            batching["max_queue_delay_us"] = dynamic.max_queue_delay_microseconds
        largest = batching.get("max_batch_size", 1)
        if queue.max_queue_size:  # 0 is Triton's unlimited, and nothing is unlimited here
            batching["max_queue_size"] = queue.max_queue_size
        if 0 < queue.max_queue_size < largest:
            self._found.ignore(f"{at}.max_queue_size", f"is raised to {largest}, which is max_batch_size")
        if dynamic.priority_levels or dynamic.default_priority_level:
            rest["priorities"] = {
                "levels": dynamic.priority_levels,
                "default": dynamic.default_priority_level,
            }
        if queue.timeout_action == queue.DELAY:
            message = "is ignored: a request expires or keeps its place; the default timeout sets no deadline"
            self._found.ignore(f"{at}.timeout_action", message)
        elif queue.default_timeout_microseconds:
            rest["deadline"] = {"default_ms": -(-queue.default_timeout_microseconds // 1000)}
        return rest

    def _tensors(self) -> dict[str, object]:
        inputs = [self._tensor(f"input[{i}]", tensor) for i, tensor in enumerate(self._config.input)]
        outputs = [self._tensor(f"output[{i}]", tensor) for i, tensor in enumerate(self._config.output)]
        return {side: tensors for side, tensors in (("inputs", inputs), ("outputs", outputs)) if tensors}

    def _tensor(self, at: str, tensor: ModelInput | ModelOutput) -> dict[str, object]:
        from protos.model_config_pb2 import DataType

        datatype = DataType.Name(tensor.data_type).removeprefix("TYPE_")
        if datatype == "INVALID":
            self._found.refuse(f"{at}.data_type", "is missing; expected a type such as TYPE_FP32")
        batch = [-1] if self._config.max_batch_size > 0 else []
        return {
            "name": tensor.name,
            "datatype": {"STRING": "BYTES"}.get(datatype, datatype),
            "shape": batch + list(tensor.dims),
        }
