"""The history of documents: a generation for each change, written in the commit that made it.

Generations of a document count up from 1 without a gap, through its deletion and its coming back. They are
never rewritten; the oldest are deleted when there are more than are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.store.store import Entry

# `found`: what somebody wrote past the ledger, recorded before the next change.
Action = Literal[
    "apply", "edit", "set", "delete", "rollback", "sync", "import", "freeze", "unfreeze",
    "override", "revert", "expiry", "load", "unload", "rollout", "found",
]  # fmt: skip


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`history/<model>/<generation>`. What a newer release adds is passed over."""

    generation: int
    change: str  # the same for all documents of a commit
    action: str  # an Action, or what a newer release calls one
    by: str
    at: str  # RFC 3339, for people: the order is that of the generations
    document: dict[str, Any] | None  # whole, without overrides; None: deleted
    why: str = ""
    based_on: int = 0  # the generation that its author had before him
    restored: int = 0  # of a rollback: the generation whose document this is again
    overrides: tuple[str, ...] = ()  # ids of those that were put or ended
    patch: dict[str, Any] | None = None  # of an override
    for_s: float = 0.0  # of an override
    retired: dict[str, str] = field(default_factory=dict)  # {version: digest} of those removed since ever


@dataclass(frozen=True, slots=True)
class Recorded:
    """`revision` is of the commit that wrote it."""

    entry: Generation
    revision: int

    def __str__(self) -> str:
        entry = self.entry
        what = printable(f"{entry.action} by {entry.by or 'unknown'} at {entry.at}")
        why = f": {printable(entry.why)}" if entry.why else ""
        return f"generation {entry.generation}, revision {self.revision} ({what}{why})"


def printable(text: str) -> str:
    """On one line of a terminal, whatever somebody wrote into the store."""
    return "".join(character if character.isprintable() else " " for character in text)


def read_recorded(entry: Entry) -> Recorded | None:
    """None for a value that is no generation: it was not written by a ledger."""
    try:
        return Recorded(msgspec.json.decode(entry.value, type=Generation), entry.revision)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def in_force_at(history: Sequence[Recorded], revision: int) -> Recorded | None:
    """The generation that was in force when the store had this revision; None where none is kept."""
    return max(
        (recorded for recorded in history if recorded.revision <= revision),
        key=lambda recorded: recorded.entry.generation,
        default=None,
    )
