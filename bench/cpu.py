"""CPU time and memory of all processes of a server, from /proc (Linux).

No time is lost: what a process used is its own time plus that of the children it has reaped, so a worker
that dies and is replaced between two readings still counts.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/<pid>/stat that matter here; `ticks` is user + system, of itself and of reaped
    children."""

    pid: int
    parent: int
    ticks: int


@dataclass(frozen=True)
class Memory:
    """PSS shares every common page among the processes that map it, so that its sum counts shared memory
    once."""

    pss_bytes: int
    rss_bytes: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.pss_bytes + other.pss_bytes, self.rss_bytes + other.rss_bytes)


def parse_stat(text: str) -> ProcessStat:
    """Reads one line of /proc/<pid>/stat (proc_pid_stat(5)). The name in parentheses may hold spaces and
    parentheses."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(")")[2].split()  # fields[0] is field 3 of the manual page
    return ProcessStat(pid=int(pid), parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def parse_memory(rollup: str) -> Memory:
    """Reads /proc/<pid>/smaps_rollup."""
    sizes = {  # {field: bytes}
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in rollup.splitlines())
        if name in ("Pss", "Rss")
    }
    return Memory(pss_bytes=sizes["Pss"], rss_bytes=sizes["Rss"])


def family(roots: Iterable[int], processes: Mapping[int, ProcessStat]) -> frozenset[int]:
    """`roots` and all their descendants among `processes` ({pid: stat})."""
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found: set[int] = set()
    waiting = [root for root in roots if root in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return frozenset(found)


def read_processes() -> dict[int, ProcessStat]:
    processes = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                stat = parse_stat((folder / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
                continue
            processes[stat.pid] = stat
    return processes


def descendants(root: int) -> frozenset[int]:
    """`root` and everything below it, now."""
    return family([root], read_processes())


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User + system seconds of each process and of the children it has reaped: {pid: seconds}, by rising pid.
    Resolution: one clock tick."""
    processes = read_processes()
    return {pid: processes[pid].ticks / TICKS_PER_S for pid in sorted(pids) if pid in processes}


def used_between(before: Mapping[int, float], after: Mapping[int, float]) -> list[float]:
    """Seconds of each process that is there `after`, from two readings. Their sum includes processes that
    ended in between, if one that is still there has reaped them."""
    return [seconds - before.get(pid, 0.0) for pid, seconds in after.items()]


def memory(pids: Iterable[int]) -> Memory:
    total = Memory(0, 0)
    for pid in pids:
        try:
            total += parse_memory((PROC / str(pid) / "smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def parse_busy_ticks(stat: str) -> int:
    """Reads /proc/stat (proc_stat(5)): ticks that all CPUs together spent on anything but idling."""
    fields = [int(field) for field in stat.splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return user + nice + system + irq + softirq + steal


@dataclass(frozen=True)
class Usage:
    """A reading of the whole machine: busy CPU seconds of all and of this process tree, since some start."""

    at_s: float
    busy_s: float
    own_s: float
    cpus: int

    def others_share(self, later: Usage) -> float:
        """The share of the machine's CPU time that work of others took from this reading to `later`."""
        elapsed_s = (later.at_s - self.at_s) * self.cpus
        others_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        return max(0.0, others_s / elapsed_s) if elapsed_s > 0 else 0.0


def usage() -> Usage:
    """The tree includes all servers and load generators of this process, also those that have ended."""
    return Usage(
        at_s=time.monotonic(),
        busy_s=parse_busy_ticks((PROC / "stat").read_text()) / TICKS_PER_S,
        own_s=sum(cpu_seconds(descendants(os.getpid())).values()),
        cpus=os.cpu_count() or 1,
    )
