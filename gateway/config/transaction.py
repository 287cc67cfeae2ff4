"""A commit in the making: the writes of several changes, what each expects, and the history they leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.config.difference import canonical, same
from gateway.config.history import Action, Generation
from gateway.config.refusal import MAX_DOCUMENT_BYTES, retired_after
from gateway.config.store.store import Delete, Expect, Put

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from gateway.config.kinds import DocumentName
    from gateway.config.standing import InForce, Standing
    from gateway.config.store.store import Write


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and what he says of it."""

    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What a generation says beside the document."""

    action: Action
    restored: int = 0
    based_on: int = 0  # 0: the generation before
    overrides: tuple[str, ...] = ()
    patch: dict[str, Any] | None = None
    for_s: float = 0.0


class Draft:
    """Not written yet. Each document may be drafted once."""

    def __init__(self, change: str, author: Author, now: datetime) -> None:
        self.change = change
        self.writes: list[Write] = []
        self.expect: list[Expect] = []
        self.generations: dict[DocumentName, int] = {}
        self.witness = ""  # a key that has this change's id if, and only if, the draft was committed
        self._author = author
        self._at = now.isoformat(timespec="seconds")

    def put(self, standing: Standing, document: dict[str, Any] | None, step: Step) -> None:
        """Make `document` the next; None deletes it, and the overrides over it."""
        key = standing.name.key
        self._expect_standing(standing)
        self.writes.append(Delete(key) if document is None else Put(key, canonical(document)))
        if document is None:
            self._delete(standing.overrides)
        self._record(standing, document, step)

    def put_override(self, standing: Standing, new: InForce) -> None:
        """Put an override under its lease. The document stays as it is."""
        override = new.override
        self._expect_standing(standing)
        self.expect.append(Expect(new.key, 0))
        self.writes.append(Put(new.key, msgspec.json.encode(override), new.lease))
        step = Step("override", overrides=(new.id,), patch=override.patch, for_s=override.for_s)
        self._record(standing, _data(standing), step)

    def end_overrides(self, standing: Standing, ending: Sequence[InForce], action: Action) -> None:
        self._expect_standing(standing)
        self._delete(ending)
        document = _data(standing)
        if document is not None:
            # as it is: so its entry has the revision at which the effective document changes
            self.writes.append(Put(standing.name.key, canonical(document)))
        self._record(standing, _data(standing), Step(action, overrides=tuple(each.id for each in ending)))

    def _expect_standing(self, standing: Standing) -> None:
        revision = standing.stored.revision if standing.stored is not None else 0
        self.expect.append(Expect(standing.name.key, revision))

    def _delete(self, overrides: Sequence[InForce]) -> None:
        for each in overrides:
            self.expect.append(Expect(each.key, each.revision))
            self.writes.append(Delete(each.key))

    def _record(self, standing: Standing, document: dict[str, Any] | None, step: Step) -> None:
        before = self._record_found(standing)
        generation = Generation(
            before + 1,
            self.change,
            step.action,
            self._author.by,
            self._at,
            document,
            why=self._author.why,
            based_on=step.based_on or before,
            restored=step.restored,
            overrides=step.overrides,
            patch=step.patch,
            for_s=step.for_s,
            retired=retired_after(standing, document),
        )
        self.witness = self._append(standing.name, generation)

    def _record_found(self, standing: Standing) -> int:
        """Record what somebody wrote past the ledger, so that it can be shown and brought back. Return the
        last generation before the one to come.
        """
        found = _data(standing)
        recorded = standing.latest.entry.document if standing.latest is not None else None
        unreadable = standing.stored is not None and found is None
        if unreadable or same(found, recorded) or len(canonical(found)) > MAX_DOCUMENT_BYTES:
            return standing.generation
        generation = standing.generation + 1
        why = "written past the ledger"
        entry = Generation(
            generation, self.change, "found", "", self._at, found, why, retired=dict(standing.retired)
        )
        self._append(standing.name, entry)
        return generation

    def _append(self, name: DocumentName, generation: Generation) -> str:
        key = name.history_key(generation.generation)
        self.expect.append(Expect(key, 0))
        self.writes.append(Put(key, canonical(generation)))
        self.generations[name] = generation.generation
        return key


def _data(standing: Standing) -> dict[str, Any] | None:
    return standing.stored.data if standing.stored is not None else None
