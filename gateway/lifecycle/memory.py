"""Room on a slot with a memory budget: a pure function from what is loaded there to who has to go."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Stay(enum.Enum):
    """Whether something that is loaded may be unloaded for another."""

    FIXED = "fixed"  # its document wants it loaded always
    BUSY = "busy"  # it loads, runs or has requests
    GOING = "going"  # it is about to go: nobody else need go for what it leaves
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Resident:
    """Something that takes a slot's memory. `used_ns` is when a request last came for it."""

    key: str
    size_bytes: int
    used_ns: int
    stay: Stay


@dataclass(frozen=True, slots=True)
class Room:
    """`fits` now; else `evict` goes first, if any, and then one looks again. Neither: it waits until
    something becomes idle, or, with a `reason`, it never fits.
    """

    fits: bool
    evict: tuple[str, ...] = ()
    reason: str = ""


def make_room(needed_bytes: int, budget_bytes: int | None, residents: Sequence[Resident]) -> Room:
    """Return whether `needed_bytes` fit beside the residents, else who is to go: the least recently used of
    the idle ones, and no more of them than it takes.
    """
    if budget_bytes is None:
        return Room(fits=True)
    used = sum(each.size_bytes for each in residents)
    if used + needed_bytes <= budget_bytes:
        return Room(fits=True)
    fixed = sum(each.size_bytes for each in residents if each.stay is Stay.FIXED)
    if fixed + needed_bytes > budget_bytes:
        held = f", of which {_mib(fixed)} are held by models that are always loaded" if fixed else ""
        return Room(
            fits=False,
            reason=f"it needs {_mib(needed_bytes)}; the slot's budget is {_mib(budget_bytes)}{held}",
        )
    used -= sum(each.size_bytes for each in residents if each.stay is Stay.GOING)
    evict = []
    for each in sorted(residents, key=lambda resident: resident.used_ns):
        if used + needed_bytes <= budget_bytes:
            break
        if each.stay is Stay.IDLE:
            evict.append(each.key)
            used -= each.size_bytes
    if used + needed_bytes > budget_bytes:
        return Room(fits=False)  # nobody goes for nothing
    return Room(fits=False, evict=tuple(evict))


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
