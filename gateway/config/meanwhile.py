"""What another operator changed between the read and the write of a change: shown, never overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.config.difference import differences
from gateway.config.merge import Merge, merge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.history import Recorded
    from gateway.config.kinds import DocumentName
    from gateway.config.stored import Stored


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """One document whose change was not made."""

    name: DocumentName
    base: Stored | None  # what our change was made from
    ours: dict[str, Any] | None
    theirs: Stored | None  # what is there now
    by: tuple[Recorded, ...]  # the generations since `base`; empty where nobody recorded one

    @property
    def merge(self) -> Merge:
        return merge(_data(self.base), self.ours, _data(self.theirs))

    def lines(self) -> tuple[str, ...]:
        """Who changed it, what, and whether the two changes go together."""
        shown = [f"{self.name} was changed meanwhile:"]
        shown += [f"  {recorded}" for recorded in self.by] or ["  by somebody who left no history"]
        shown += [f"    {each}" for each in differences(_data(self.base), _data(self.theirs))]
        overlaps = self.merge.overlaps
        if not overlaps:
            shown.append("  your change is of other fields: the two go together")
        else:
            shown.append(f"  your change is of the same: {', '.join(overlaps)}")
            mine = differences(_data(self.base), self.ours)
            shown += [f"    {each}" for each in mine]
        return tuple(shown)


class ChangedMeanwhile(Exception):
    """Nothing was written. `str(error)` has everything an operator needs to decide."""

    def __init__(self, documents: Sequence[Meanwhile]) -> None:
        super().__init__(documents)
        self.documents = tuple(documents)

    def __str__(self) -> str:
        return "\n".join(line for document in self.documents for line in document.lines())


def _data(stored: Stored | None) -> dict[str, Any] | None:
    return stored.data if stored is not None else None
