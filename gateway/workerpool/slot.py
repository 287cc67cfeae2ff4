"""Device slots: a node's settings, and how they are written on the command line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.device import Device, parse_device

if TYPE_CHECKING:
    from collections.abc import Collection

# Runs at once on an accelerator unless the slot says otherwise: one computes while the other's tensors move.
_ACCELERATOR_CAPACITY = 2
_UNITS_BYTES = {"MiB": 1 << 20, "GiB": 1 << 30, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,3}})?) ?({'|'.join(_UNITS_BYTES)})")


class SlotInvalid(Exception):
    """A slot's text is wrong; the message says what is valid."""


@dataclass(frozen=True)
class Slot:
    """One device that one worker process owns.

    `cpus` are the processors its process is pinned to. `capacity` is how much may run at once: threads on CPU
    devices, runs on accelerators. `memory_bytes` is what models may take there, None without a limit. `node`
    is empty for a slot of this process's own pool. Of another one's, `runtimes` are those that are installed
    there, and `fetches` says that it gets models' files by itself, from their sources.
    """

    name: str
    device: Device
    cpus: tuple[int, ...]
    capacity: int
    memory_bytes: int | None = None
    node: str = ""
    runtimes: tuple[str, ...] = ()
    fetches: bool = False

    @property
    def on_cpu(self) -> bool:
        return is_cpu(self.device)

    @property
    def cuda_visible_devices(self) -> str:
        """What the worker's environment shows of CUDA: its own device, or none."""
        return str(self.device.index) if self.device.kind == "cuda" else ""


def is_cpu(device: Device) -> bool:
    return device.kind == "cpu" or str(device) == "openvino:CPU"


def parse_slot(text: str, allowed: Collection[int] | None = None) -> Slot:
    """Read `DEVICE[,cpus=LIST][,capacity=N][,memory=SIZE]`, for example `cpu:0-3`, `cuda:0` or
    `openvino:CPU,cpus=4-7,memory=4GiB`.
    `allowed` are the processors that a slot may name, by default those of this process.

    Raises:
        SlotInvalid: with what is wrong and what is valid.
    """
    # a CPU list has commas of its own: options are what contains '='
    device_text, options = _split(text)
    try:
        device = parse_device(device_text)
    except ValueError as error:
        raise SlotInvalid(f"slot {text!r}: {error}") from error
    unknown = sorted(set(options) - {"cpus", "capacity", "memory"})
    if unknown:
        raise SlotInvalid(
            f"slot {text!r}: unknown option {unknown[0]!r}; there are cpus, capacity and memory"
        )
    usable = tuple(sorted(os.sched_getaffinity(0) if allowed is None else allowed))
    cpus = _cpus(text, device, options.get("cpus"), usable)
    capacity = len(cpus) if is_cpu(device) else _ACCELERATOR_CAPACITY
    if "capacity" in options:
        if not options["capacity"].isdecimal() or int(options["capacity"]) < 1:
            raise SlotInvalid(f"slot {text!r}: capacity must be a whole number from 1")
        capacity = int(options["capacity"])
    return Slot(text, device, cpus, capacity, _memory_bytes(text, options.get("memory")))


def _memory_bytes(text: str, size: str | None) -> int | None:
    if size is None:
        return None
    found = _SIZE.fullmatch(size.strip())
    if found is None or not float(found[1]):
        raise SlotInvalid(f"slot {text!r}: memory must be a size such as 512MiB or 4GiB, not {size!r}")
    return int(float(found[1]) * _UNITS_BYTES[found[2]])


def _split(text: str) -> tuple[str, dict[str, str]]:
    device: list[str] = []
    options: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if equals:
            last = key.strip()
            options[last] = value
        elif last:
            options[last] += f",{part}"
        else:
            device.append(part)
    return ",".join(device), options


def _cpus(text: str, device: Device, listed: str | None, allowed: tuple[int, ...]) -> tuple[int, ...]:
    cpus = allowed
    if device.kind == "cpu" and device.cpus:
        cpus = device.cpus
    elif device.kind == "cpu" and device.numa is not None:
        path = Path(f"/sys/devices/system/node/node{device.numa}/cpulist")
        if not path.is_file():
            raise SlotInvalid(f"slot {text!r}: there is no NUMA node {device.numa} here")
        listing = path.read_text().strip()
        cpus = cpu_list(listing) if listing else ()  # a node may have memory only
    if listed is not None:
        try:
            cpus = cpu_list(listed)
        except ValueError as error:
            raise SlotInvalid(f"slot {text!r}: cpus must be a list such as 0-3,6") from error
    missing = sorted(set(cpus) - set(allowed))
    if missing or not cpus:
        what = f"CPU {missing[0]}" if missing else "an empty CPU list"
        raise SlotInvalid(f"slot {text!r}: {what} is not there; this process may use {_ranges(allowed)}")
    return cpus


def cpu_list(text: str) -> tuple[int, ...]:
    """Read `0-3,6` as (0, 1, 2, 3, 6).

    Raises:
        ValueError: it is not such a list.
    """
    cpus: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        cpus.update(range(int(low), int(high or low) + 1))
    return tuple(sorted(cpus))


def _ranges(cpus: tuple[int, ...]) -> str:
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) == cpus[-1] - cpus[0] + 1 else ",".join(map(str, cpus))
