"""What a pool tells a worker at its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerSettings:
    """`listen_fd` is an inherited Unix socket that listens already; `cpus` the processors to run on, empty
    for all; `capacity` how much may run at once (threads on a CPU slot, runs on an accelerator). Without any
    gateway for `grace_s` the worker exits, and at once when the last one says goodbye.
    """

    name: str
    listen_fd: int
    device: str
    capacity: int
    cpus: tuple[int, ...] = ()
    grace_s: float = 2.0
    segment_bytes: int = 16 << 20
    budget_bytes: int = 256 << 20
