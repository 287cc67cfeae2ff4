"""Changes of documents, as a ledger takes them, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.config.store.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.history import Action
    from gateway.config.kinds import DocumentName
    from gateway.config.stored import Stored


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A whole new document, or None to delete it. `base` is what the change was made from, None where there
    was no document.
    """

    name: DocumentName
    document: dict[str, Any] | None
    base: Stored | None
    action: Action
    restored: int = 0  # of a rollback: the generation that comes back
    based_on: int = 0  # the generation whose author's file this is; 0: the latest


@dataclass(frozen=True, slots=True)
class Committed:
    revision: int
    change: str
    generations: Mapping[DocumentName, int]


@dataclass(frozen=True, slots=True)
class Overridden:
    committed: Committed
    id: str


class OutcomeUnknown(StoreError):
    """The connection broke while the change was on its way: it was applied whole, or not at all."""

    def __init__(self, change: str, names: Iterable[DocumentName], where: str) -> None:
        self.change = change
        self.names = tuple(names)
        super().__init__(
            f"{where}: the connection broke before the answer came; whether change {change} was applied, "
            f"`crossgate history {next(iter(self.names))}` says"
        )


class LedgerBusy(StoreError):
    """Others changed the same documents again and again; nothing was written."""


class TooManyDocuments(Exception):
    """More than one commit takes; nothing was written."""
