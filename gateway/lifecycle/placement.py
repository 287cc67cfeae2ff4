"""Which slots, of this node and of others, run a model's instances: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.document import Instance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

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
    """Return where the instances run. Without instances the file decides, on each node: ONNX Runtime on a CPU
    where installed, else OpenVINO.

    `node` is the name of this machine, whose slots have none, and `runtimes` are those that are installed
    here. An instance runs on every matching node that has its device and its runtime; its count is spread
    over the slots there that match its device. A slot that gets none of it is left out.

    Raises:
        PlacementFailed: no node has what an instance needs, or nothing can run the file.
    """
    nodes = _nodes(slots, runtimes, node)
    placed: dict[str, Placed] = {}
    if not instances:
        _on_any(nodes, placed, lambda there: _default_instance(path, there))
    matched = False
    for instance in instances:
        matching = [there for there in nodes if fnmatchcase(there.name, instance.where.node)]
        if matching:
            matched = True
            _on_any(matching, placed, partial(_given, instance))
    if instances and not matched:
        wanted = ", ".join(sorted({instance.where.node for instance in instances}))
        here = f"this node, {node}" if len(nodes) == 1 else "the nodes " + ", ".join(n.name for n in nodes)
        raise PlacementFailed(f"no instance is for {here}; they are for {wanted}")
    return tuple(placed.values())


def _given(instance: Instance, node: _Node) -> Instance:
    return instance


class _Node(NamedTuple):
    name: str
    slots: Sequence[Slot]
    runtimes: Collection[str]
    here: bool  # it is this machine


def _nodes(slots: Sequence[Slot], runtimes: Collection[str], node: str) -> list[_Node]:
    """Return the nodes with slots, this one first; this one where there are none at all."""
    by_name: dict[str, list[Slot]] = {node: []}
    for slot in slots:
        by_name.setdefault(slot.node or node, []).append(slot)
    return [
        _Node(name, there, _runtimes_on(there, runtimes), name == node)
        for name, there in by_name.items()
        if there or len(by_name) == 1
    ]


def _runtimes_on(slots: Sequence[Slot], here: Collection[str]) -> Collection[str]:
    others = [slot.runtimes for slot in slots if slot.node]
    return here if len(others) < len(slots) or not slots else set().union(*others)


def _on_any(nodes: Sequence[_Node], placed: dict[str, Placed], choose: Callable[[_Node], Instance]) -> None:
    """Place an instance on all of these nodes that can run it. Raises PlacementFailed: none of them can; the
    reason is that of the first.
    """
    failures: list[PlacementFailed] = []
    for node in nodes:
        try:
            instance = choose(node)
            slots = _matching(instance, node)
        except PlacementFailed as error:
            failures.append(error)
        else:
            _spread(instance, slots, placed)
    if len(failures) == len(nodes):
        raise failures[0]


def _matching(instance: Instance, node: _Node) -> list[Slot]:
    """Return the slots of a node that an instance may use. Raises PlacementFailed: there is none."""
    where = "here" if node.here else f"on node {node.name}"
    if instance.runtime not in node.runtimes:
        installed = ", ".join(sorted(node.runtimes)) or "none"
        raise PlacementFailed(f"runtime {instance.runtime} is not installed {where}; there is {installed}")
    matching = [slot for slot in node.slots if matches(instance.parsed_device, slot.device)]
    if not matching:
        there = ", ".join(str(slot.device) for slot in node.slots) or "none"
        raise PlacementFailed(f"no slot {where} is {instance.device}; there are {there}")
    return matching


def _spread(instance: Instance, slots: Sequence[Slot], placed: dict[str, Placed]) -> None:
    for i, slot in enumerate(slots):
        count = instance.count // len(slots) + (i < instance.count % len(slots))
        if not count:
            continue
        if slot.name in placed:
            raise PlacementFailed(
                f"two instances want the slot {slot.name}; give one of them a slot of its own"
            )
        width = _width(instance, slot, count)
        placed[slot.name] = Placed(slot.name, instance.runtime, count, width, instance.options)


def matches(wanted: Device, there: Device) -> bool:
    """A plain `cpu` is any CPU slot; everything else is itself."""
    if wanted.kind == "cpu" and not wanted.cpus and wanted.numa is None:
        return there.kind == "cpu"
    return wanted == there


def _width(instance: Instance, slot: Slot, count: int) -> int:
    if not slot.on_cpu:
        return 1
    return min(instance.threads, slot.capacity) if instance.threads else max(slot.capacity // count, 1)


def _default_instance(path: str, node: _Node) -> Instance:
    slots, runtimes = node.slots, node.runtimes
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
    where = "here" if node.here else f"on node {node.name}"
    raise PlacementFailed(f"nothing {where} can run {name}: slots {there}; runtimes {installed}")
