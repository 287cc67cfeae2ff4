"""Which slots of this node run a model's instances: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gateway.config.document import Instance

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gateway.config.device import Device
    from gateway.workerpool.slot import Slot


class PlacementFailed(Exception):
    """No slot here can run the model; the message names what is there."""


@dataclass(frozen=True)
class Placed:
    """One servable on one slot: `count` runs at once, each of `width` of the slot's capacity."""

    slot: str
    runtime: str
    count: int
    width: int
    options: Mapping[str, str | int | float | bool]


def place(
    instances: Sequence[Instance], path: str, slots: Sequence[Slot], runtimes: Collection[str], node: str = ""
) -> tuple[Placed, ...]:
    """Return where the instances run. Without instances the file decides: ONNX Runtime on a CPU where
    installed, else OpenVINO.

    Instances for other nodes than `node` are left out. An instance's count is spread over the slots that
    match its device; a slot that gets none of it is left out.

    Raises:
        PlacementFailed: a device is not there, or nothing can run the file.
    """
    placed: dict[tuple[str, str], Placed] = {}
    here = [instance for instance in instances if fnmatchcase(node, instance.where.node)]
    if instances and not here:
        nodes = ", ".join(sorted({instance.where.node for instance in instances}))
        raise PlacementFailed(f"no instance is for this node, {node}; they are for {nodes}")
    for instance in here or (_default_instance(path, slots, runtimes),):
        if instance.runtime not in runtimes:
            raise PlacementFailed(
                f"runtime {instance.runtime} is not installed here; there is {', '.join(sorted(runtimes))}"
            )
        matching = [slot for slot in slots if matches(instance.parsed_device, slot.device)]
        if not matching:
            there = ", ".join(str(slot.device) for slot in slots)
            raise PlacementFailed(f"no slot here is {instance.device}; there are {there}")
        for i, slot in enumerate(matching):
            count = instance.count // len(matching) + (i < instance.count % len(matching))
            if count:
                key = (slot.name, instance.runtime)
                if key in placed or any(name == slot.name for name, _ in placed):
                    raise PlacementFailed(
                        f"two instances want the slot {slot.name}; give one of them a slot of its own"
                    )
                placed[key] = Placed(
                    slot.name, instance.runtime, count, _width(instance, slot, count), instance.options
                )
    return tuple(placed.values())


def matches(wanted: Device, there: Device) -> bool:
    """A plain `cpu` is any CPU slot; everything else is itself."""
    if wanted.kind == "cpu" and not wanted.cpus and wanted.numa is None:
        return there.kind == "cpu"
    return wanted == there


def _width(instance: Instance, slot: Slot, count: int) -> int:
    if not slot.on_cpu:
        return 1
    return min(instance.threads, slot.capacity) if instance.threads else max(slot.capacity // count, 1)


def _default_instance(path: str, slots: Sequence[Slot], runtimes: Collection[str]) -> Instance:
    has_cpu = any(slot.device.kind == "cpu" for slot in slots)
    openvino = next((str(slot.device) for slot in slots if slot.device.kind == "openvino"), None)
    if path.endswith(".onnx"):
        if has_cpu and "onnxruntime" in runtimes:
            return Instance("onnxruntime", "cpu")
        cuda = next((str(slot.device) for slot in slots if slot.device.kind == "cuda"), None)
        if cuda is not None and "onnxruntime" in runtimes:
            return Instance("onnxruntime", cuda)
    if path.endswith((".onnx", ".xml")) and openvino is not None and "openvino" in runtimes:
        return Instance("openvino", openvino)
    if not path.endswith((".onnx", ".xml")):
        raise PlacementFailed(f"{path} has no model.onnx or model.xml, and the document names no instances")
    there = ", ".join(str(slot.device) for slot in slots) or "none"
    installed = ", ".join(sorted(runtimes)) or "none"
    name = path.rpartition("/")[2]
    raise PlacementFailed(f"nothing here can run {name}: slots {there}; runtimes {installed}")
