"""What this machine has: runtimes that are installed and devices that they can use, and why not for the
others.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}


class RuntimeFinding(NamedTuple):
    """`version` is '' when it is not installed; `detail` says why, or which package it comes from."""

    name: str
    version: str
    detail: str


class DeviceFinding(NamedTuple):
    device: str
    usable: bool
    detail: str


def find_runtimes() -> list[RuntimeFinding]:
    """Return what is known about each runtime, without importing it."""
    found = []
    for name, packages in _PACKAGES.items():
        for package in packages:
            if importlib.util.find_spec(name) is None:
                continue
            try:
                found.append(RuntimeFinding(name, importlib.metadata.version(package), package))
                break
            except importlib.metadata.PackageNotFoundError:
                continue
        else:
            extra = "cpu] or crossgate[cuda" if name == "onnxruntime" else name
            found.append(RuntimeFinding(name, "", f"not installed: pip install 'crossgate[{extra}]'"))
    found.append(RuntimeFinding("loopback", "built in", "answers with its inputs, for measuring and tests"))
    return found


def installed_runtimes() -> frozenset[str]:
    return frozenset(finding.name for finding in find_runtimes() if finding.version)


def nvidia_devices() -> list[str]:
    """Return the CUDA devices that the driver shows, without loading CUDA."""
    gpus = Path("/proc/driver/nvidia/gpus")
    count = len(list(gpus.iterdir())) if gpus.is_dir() else 0
    count = count or len(list(Path("/dev").glob("nvidia[0-9]*")))
    return [f"cuda:{i}" for i in range(count)]


def openvino_devices() -> list[str]:
    """Return OpenVINO's devices, asked for in a process of its own: importing it here would cost memory and
    threads.
    """
    code = "import openvino; print(','.join(openvino.Core().available_devices))"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return [f"openvino:{name}" for name in result.stdout.strip().split(",") if name]


def default_slots(runtimes: frozenset[str]) -> tuple[str, ...]:
    """Return one slot for the CPUs, one for each GPU, and one for OpenVINO on the CPUs."""
    slots = ["cpu"]
    if "onnxruntime" in runtimes:
        slots += nvidia_devices()
    if "openvino" in runtimes:
        slots.append("openvino:CPU")
    return tuple(slots)


def find_devices() -> list[DeviceFinding]:
    """Return which devices a slot may name here, and why others may not."""
    runtimes = {finding.name: finding for finding in find_runtimes()}
    cpus = sorted(os.sched_getaffinity(0))
    ort = runtimes["onnxruntime"]
    found = [DeviceFinding("cpu", bool(ort.version), f"{len(cpus)} CPUs" if ort.version else ort.detail)]
    gpus = nvidia_devices()
    if not gpus:
        found.append(
            DeviceFinding("cuda:0", False, "no NVIDIA device: /proc/driver/nvidia and /dev/nvidia* show none")
        )
    for gpu in gpus:
        cuda = ort.version and ort.detail == "onnxruntime-gpu"
        found.append(
            DeviceFinding(
                gpu, bool(cuda), "" if cuda else "needs onnxruntime-gpu: pip install 'crossgate[cuda]'"
            )
        )
    openvino = runtimes["openvino"]
    if not openvino.version:
        found.append(DeviceFinding("openvino:CPU", False, openvino.detail))
        return found
    devices = openvino_devices()
    found += [DeviceFinding(device, True, f"OpenVINO {openvino.version}") for device in devices]
    for name in ("openvino:GPU", "openvino:NPU"):
        if not any(device.startswith(name) for device in devices):
            found.append(DeviceFinding(name, False, "OpenVINO finds no such device or driver here"))
    return found
