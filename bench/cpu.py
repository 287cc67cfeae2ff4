"""CPU time and memory of all processes of a server, from /proc (Linux).

No time is lost: what a process used is its own time plus that of the children it has reaped, so a worker
that dies and is replaced between two readings still counts.
"""

from __future__ import annotations

import os
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


def cpu_seconds(pids: Iterable[int]) -> float:
    """User + system seconds of these processes and of the children they have reaped. Resolution: one clock
    tick each."""
    processes = read_processes()
    return sum(processes[pid].ticks for pid in pids if pid in processes) / TICKS_PER_S


def memory(pids: Iterable[int]) -> Memory:
    total = Memory(0, 0)
    for pid in pids:
        try:
            total += parse_memory((PROC / str(pid) / "smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
