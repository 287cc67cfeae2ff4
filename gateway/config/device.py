"""The device grammar: which piece of hardware an instance or a worker's slot is bound to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MAX_CPUS = 4096  # more than any machine has; keeps `cpu:0-999999999` from filling the memory
DEVICE_GRAMMAR = (
    "cpu, cpu:0-3, cpu:0,2, cpu@numa1, cuda:0, openvino:CPU, openvino:GPU, openvino:GPU.1, openvino:NPU "
    "or openvino:AUTO"
)

DeviceKind = Literal["cpu", "cuda", "openvino"]

_CPU_LIST = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")
_OPENVINO = re.compile(r"CPU|GPU|GPU\.[0-9]{1,2}|NPU|AUTO")
_INDEX = re.compile(r"0|[1-9][0-9]{0,2}")


@dataclass(frozen=True, slots=True)
class Device:
    """Equal devices compare equal however they were written: `cpu:2,0-1` is `cpu:0-2`."""

    kind: DeviceKind
    cpus: tuple[int, ...] = ()  # ascending; empty = any CPU of the node, or of `numa`
    numa: int | None = None
    index: int | None = None  # of a CUDA device
    openvino: str | None = None  # OpenVINO's own name of the device

    def __str__(self) -> str:
        if self.kind == "cuda":
            return f"cuda:{self.index}"
        if self.kind == "openvino":
            return f"openvino:{self.openvino}"
        if self.numa is not None:
            return f"cpu@numa{self.numa}"
        return f"cpu:{_ranges(self.cpus)}" if self.cpus else "cpu"


def parse_device(text: str) -> Device:
    """Raises ValueError that says what is valid; whether the device exists is known only on its node."""
    kind, _, rest = text.partition(":")
    if text == "cpu":
        return Device("cpu")
    if kind == "cpu" and _CPU_LIST.fullmatch(rest):
        return Device("cpu", cpus=_cpus(text, rest))
    if text.startswith("cpu@numa") and _INDEX.fullmatch(text[8:]):
        return Device("cpu", numa=int(text[8:]))
    if kind == "cuda" and _INDEX.fullmatch(rest):
        return Device("cuda", index=int(rest))
    if kind == "openvino" and _OPENVINO.fullmatch(rest):
        return Device("openvino", openvino=rest)
    raise ValueError(f"expected {DEVICE_GRAMMAR}")


def _cpus(text: str, listed: str) -> tuple[int, ...]:
    cpus: list[int] = []
    for part in listed.split(","):
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise ValueError(f"expected a range that counts up, such as cpu:0-3, not {part}")
        if span[-1] >= MAX_CPUS:
            raise ValueError(f"expected CPU numbers below {MAX_CPUS}, not {span[-1]}")
        cpus.extend(span)
    if len(set(cpus)) != len(cpus):
        raise ValueError(f"{text} names a CPU twice")
    return tuple(sorted(cpus))


def _ranges(cpus: tuple[int, ...]) -> str:
    spans: list[list[int]] = []
    for cpu in cpus:
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
