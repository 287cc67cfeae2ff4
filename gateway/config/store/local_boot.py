"""The time by which the leases of a local store expire."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Protocol

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LeaseClock(Protocol):
    """Nanoseconds since the machine started, and which start that was."""

    @property
    def boot(self) -> str: ...

    def now_ns(self) -> int: ...


class BootClock:
    """CLOCK_BOOTTIME with the boot's id.

    Leases are in a file, so their time must mean the same to every process and survive all of them, which
    rules out time since a process started. The wall clock jumps: a correction by an hour would end every
    lease, or keep the dead for an hour. CLOCK_BOOTTIME does neither and, unlike CLOCK_MONOTONIC, counts the
    time that a machine was suspended. It starts anew with the machine: then nobody who held a lease lives.
    """

    def __init__(self) -> None:
        self.boot = _BOOT_ID.read_text().strip()

    def now_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
