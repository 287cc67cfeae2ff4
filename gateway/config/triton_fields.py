"""What happens to each field of a Triton `config.pbtxt`: honoured, ignored with a warning, or refused.

Refused is what would change answers, ignored what changes only speed, ordering or reporting. A field in no
table (a newer .proto has more) is refused: nothing that a configuration says is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.config.errors import Problem
from gateway.config.wording import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.message import Message

# {message: its fields}. `gateway.config.triton` reads them and reports those of their values that it cannot
# honour. Indices and map keys are left out. A present but empty message of these is harmless.
_HONOURED_FIELDS: Final = {
    "": ["name", "platform", "backend", "max_batch_size", "default_model_filename"],
    "version_policy": ["all"],
    "version_policy.latest": ["num_versions"],
    "version_policy.specific": ["versions"],
    "input": ["name", "data_type", "dims"],
    "output": ["name", "data_type", "dims"],
    "instance_group": ["kind", "count", "gpus"],
    "dynamic_batching": ["max_queue_delay_microseconds", "priority_levels", "default_priority_level"],
    "dynamic_batching.default_queue_policy": [
        "timeout_action",
        "default_timeout_microseconds",
        "allow_timeout_override",
        "max_queue_size",
    ],
    "optimization": [],
    "optimization.graph": ["level"],
    "parameters": ["string_value"],
    "model_warmup": ["count"],
    "model_transaction_policy": [],
}
HONOURED: Final = frozenset(
    f"{message}.{name}".removeprefix(".") for message, names in _HONOURED_FIELDS.items() for name in names
) | frozenset(_HONOURED_FIELDS)

IGNORED: Final[Mapping[str, str]] = {  # {field and all below it: what happens instead}
    "runtime": "back ends here are not shared libraries",
    "input.format": "tensors are passed on as they come",
    "output.label_filename": "the classification extension is not offered",
    "dynamic_batching.preferred_batch_size": "a batch takes what waits when an instance is free",
    "dynamic_batching.preserve_ordering": "each response leaves when it is ready",
    "dynamic_batching.priority_queue_policy": "one queue policy holds for every priority level",
    "optimization": "has no counterpart; instances[].options tunes the runtime",
    "instance_group.name": "instances have no names",
    "instance_group.rate_limiter": "device slots limit what runs at the same time",
    "instance_group.profile": "only TensorRT plans have profiles",
    "instance_group.host_policy": "instances[].device names CPUs or a NUMA node, such as cpu@numa1",
    "metric_tags": "metrics are labelled by model, version and device",
    "model_metrics": "histograms have fixed buckets",
    "response_cache": "there is no response cache",
    "model_warmup.name": "warm-up requests have no names",
    "model_warmup.batch_size": "warm-up makes its own inputs from the signature",
    "model_warmup.inputs": "warm-up makes its own inputs from the signature",
}

REFUSED: Final[Mapping[str, str]] = {  # {field and all below it: why}
    "input.reshape": "tensors reach the model in the shape in which they come",
    "output.reshape": "tensors leave the model in the shape in which they come",
    "input.is_shape_tensor": "shape tensors are not offered",
    "output.is_shape_tensor": "shape tensors are not offered",
    "input.allow_ragged_batch": "ragged batches are not offered; batching.pad fills up to common shapes",
    "input.optional": "every input is required",
    "input.is_non_linear_format_io": "only linear tensor formats are offered",
    "output.is_non_linear_format_io": "only linear tensor formats are offered",
    "batch_input": "inputs made from the batch are not offered",
    "batch_output": "outputs scattered over the batch are not offered",
    "sequence_batching": "state between requests is not offered",
    "ensemble_scheduling": "pipelines of models are not offered",
    "model_transaction_policy.decoupled": "a request has exactly one response",
    "instance_group.passive": "every instance serves",
    "instance_group.secondary_devices": "an instance has one device",
    "cc_model_filenames": "one file serves every GPU; use default_model_filename",
    "model_operations": "custom operator libraries are not loaded",
    "model_repository_agents": "no agent changes a model's files here; packages are signed instead",
}


class Findings:
    """What a configuration says and cannot have."""

    def __init__(self) -> None:
        self.refused: list[Problem] = []
        self.ignored: list[Problem] = []

    def refuse(self, place: str, message: str) -> None:
        self.refused.append(Problem(place, message))

    def ignore(self, place: str, message: str) -> None:
        self.ignored.append(Problem(place, message))


@dataclass(frozen=True, slots=True)
class Field:
    """A set field without set fields below it."""

    place: str  # "input[0].reshape.shape", with indices and map keys
    blocks: tuple[str, ...]  # places of the fields around it, outermost first, and its own
    names: tuple[str, ...]  # "input", "reshape", "shape"


def sweep(message: Message, found: Findings) -> None:
    """Adds a finding for every set field that is not honoured. A refused block is named once."""
    refused: set[str] = set()
    for field in set_fields(message):
        if ".".join(field.names) in HONOURED:
            continue
        place, reason, is_refused = _verdict(field)
        if not is_refused:
            found.ignore(field.place, f"is ignored: {reason}")
        elif place not in refused:
            refused.add(place)
            found.refuse(place, f"cannot be honoured: {reason}")


def _verdict(field: Field) -> tuple[str, str, bool]:
    """(place, reason, whether refused) by the innermost block that a table names."""
    for depth in range(len(field.names), 0, -1):
        name, place = ".".join(field.names[:depth]), field.blocks[depth - 1]
        if name in IGNORED:
            return place, IGNORED[name], False
        if name in REFUSED:
            return place, REFUSED[name], True
    return field.place, "it is not known here", True


def set_fields(
    message: Message, blocks: tuple[str, ...] = (), names: tuple[str, ...] = ()
) -> Iterator[Field]:
    """Every set leaf; a message that is present but empty is one too: `sequence_batching {}` counts."""
    before = f"{blocks[-1]}." if blocks else ""
    for descriptor, value in message.ListFields():
        inner = (*names, descriptor.name)
        for place, one in _values(before + descriptor.name, value):
            around = (*blocks, place)
            if hasattr(one, "ListFields") and one.ListFields():
                yield from set_fields(one, around, inner)
            else:
                yield Field(place, around, inner)


def _values(place: str, value: Any) -> Iterable[tuple[str, Any]]:
    """(place, value) of each message in a repeated or map field; scalars stay together."""
    if hasattr(value, "ListFields") or isinstance(value, (str, bytes, int, float)):
        return [(place, value)]
    if isinstance(value, Mapping):
        entries = sorted(value.items(), key=lambda entry: str(entry[0]))
        return [(join(place, str(key)), one) for key, one in entries]
    items = list(value)
    if items and hasattr(items[0], "ListFields"):
        return [(f"{place}[{i}]", one) for i, one in enumerate(items)]
    return [(place, items)]
