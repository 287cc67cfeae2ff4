"""Changes of documents: several in one transaction, checked before, recorded with it.

Guarantees, on every store:

- a commit changes all its documents or none, and writes a generation of history for each in the same
  revision;
- no document is changed that is not as it was when its change was made (ChangedMeanwhile says by whom);
- nothing invalid, frozen or too large is written (ChangeRefused lists every reason);
- a change is applied once at most, also where the connection breaks before its answer: the generation of
  history that it writes is expected not to be there.
"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.config.change import (
    Committed,
    DocumentChange,
    LedgerBusy,
    OutcomeUnknown,
    Overridden,
    TooManyDocuments,
)
from gateway.config.difference import same
from gateway.config.drafting import MAX_DOCUMENTS, Drafting, refusals_of
from gateway.config.errors import Problem
from gateway.config.history import Recorded, read_recorded
from gateway.config.holding import Holding, read_document, read_history, read_holding, read_standing
from gateway.config.keys import override_key
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.override import MARGIN_S, Override
from gateway.config.refusal import ChangeRefused, Refusal
from gateway.config.standing import InForce, Standing
from gateway.config.store.store import CommitUnclear, Conflict, StoreAway, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.config.history import Action
    from gateway.config.kinds import DocumentName
    from gateway.config.store.store import Store
    from gateway.config.stored import Stored
    from gateway.config.transaction import Author, Draft

RETAINED: Final = 1000  # generations of one document
MAX_OVERRIDE_S: Final = 30 * 86_400.0
_NEWEST: Final = 2**63 - 1  # the revision of what is not written yet
_ATTEMPTS: Final = 20  # each that is lost was won by somebody else


def _utc() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """Documents in a store. `now` is for people only: nothing is decided by a clock."""

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], datetime] = _utc,
        retained: int = RETAINED,
    ) -> None:
        self._store = store
        self._now = now
        self._drafting = Drafting(store, now, retained)

    async def read(self, name: DocumentName) -> Stored | None:
        """Raises StoreError, as all that reads."""
        return await read_document(self._store, name)

    async def read_all(self) -> Holding:
        return await read_holding(self._store)

    async def standing(self, name: DocumentName) -> Standing:
        return await read_standing(self._store, name)

    async def history(self, name: DocumentName) -> tuple[Recorded, ...]:
        """Every generation that is kept, ascending."""
        return await read_history(self._store, name)

    async def check(self, changes: Sequence[DocumentChange]) -> tuple[Refusal, ...]:
        """Why `commit` would refuse these changes. Raises StoreError."""
        try:
            policy = await self._drafting.policy([change.name for change in changes])
        except ChangeRefused as error:
            return error.refusals
        standings = await self._drafting.standings(changes)
        return refusals_of(changes, standings, policy.document)

    async def commit(self, changes: Sequence[DocumentChange], author: Author) -> Committed:
        """Make all changes in one revision. A document that is deleted takes its overrides with it.

        Raises:
            ChangeRefused: a document is invalid, frozen, too large, or changes a digest.
            ChangedMeanwhile: a document is not what its change was made from.
            TooManyDocuments, CommitTooLarge: fewer at once are possible.
            StoreError: as of the store, OutcomeUnknown, LedgerBusy.
        """
        if len(changes) > MAX_DOCUMENTS:
            raise TooManyDocuments(f"{len(changes)} documents in one commit: the most is {MAX_DOCUMENTS}")
        change = uuid.uuid4().hex
        return await self._write(
            change, [each.name for each in changes], lambda: self._drafting.changes(changes, author, change)
        )

    async def amend(
        self,
        name: DocumentName,
        amend: Callable[[dict[str, Any]], dict[str, Any]],
        author: Author,
        action: Action,
        *,
        create: bool = False,
    ) -> Committed | None:
        """Change what is there by a function of it; None where that changes nothing. What somebody else
        changes meanwhile is kept, where it is not of the same fields. `create`: from an empty one if need be.

        Raises as `commit` does, and what `amend` raises.
        """
        base = await self.read(name)
        for _ in range(_ATTEMPTS):
            if base is None and not create:
                raise ChangeRefused([Refusal(name, (Problem("", "is not there"),))])
            if base is not None and base.data is None:
                raise ChangeRefused([Refusal(name, (Problem("", base.problem),))])
            data = base.data if base is not None and base.data is not None else {}
            document = amend(data)
            if same(document, data):
                return None
            try:
                return await self.commit([DocumentChange(name, document, base, action)], author)
            except ChangedMeanwhile as error:
                (meanwhile,) = error.documents
                if meanwhile.merge.overlaps:
                    raise
                base = meanwhile.theirs
        raise LedgerBusy(f"{name}: others change it again and again; nothing was written")

    async def override(
        self, model: DocumentName, patch: dict[str, Any], for_s: float, author: Author
    ) -> Overridden:
        """Put a merge patch over a model's document, which reverts by itself after `for_s`.

        Raises as `commit` does; ChangeRefused also where the patch changes nothing.
        """
        if not (math.isfinite(for_s) and 1 <= for_s <= MAX_OVERRIDE_S):
            problem = Problem("", f"expected an override of 1 s to {MAX_OVERRIDE_S / 86400:.0f} days")
            raise ChangeRefused([Refusal(model, (problem,))])
        id, change = uuid.uuid4().hex[:8], uuid.uuid4().hex
        at = self._now().isoformat(timespec="seconds")
        override = Override(patch, for_s, author.by, change, at, author.why)
        lease = await self._store.grant(for_s + MARGIN_S)
        new = InForce(id, override, override_key(model.name, id), _NEWEST, lease)
        try:
            committed = await self._write(
                change, [model], lambda: self._drafting.override(model, new, author)
            )
        except OutcomeUnknown:
            raise  # the lease may be in use
        except Exception:
            await self._forget(lease)
            raise
        return Overridden(committed, id)

    async def end_overrides(
        self, model: DocumentName, ids: Sequence[str], author: Author, action: Action = "revert"
    ) -> Committed:
        """End overrides before their time, or (`expiry`, which freezing does not hold up) in time.

        Raises as `commit` does; ChangeRefused where one is not in force.
        """
        change = uuid.uuid4().hex
        return await self._write(
            change, [model], lambda: self._drafting.end_overrides(model, tuple(ids), author, action, change)
        )

    async def _write(
        self, change: str, names: Sequence[DocumentName], make: Callable[[], Awaitable[Draft]]
    ) -> Committed:
        """Draft and commit until that succeeds, is refused, or somebody changed what the change is about."""
        unclear: Draft | None = None
        for _ in range(_ATTEMPTS):
            try:
                if unclear is not None and (done := await self._applied(unclear)) is not None:
                    return done
                draft = await make()
                revision = await self._store.commit(draft.writes, draft.expect)
            except Conflict:
                continue  # drafting it anew finds out by whom, or that it does not matter
            except CommitUnclear:
                unclear = draft
                continue
            except StoreAway as error:
                if unclear is not None:
                    raise OutcomeUnknown(change, names, self._store.where) from error
                raise
            except (ChangedMeanwhile, ChangeRefused):
                # What is there now may be our own change, which arrived after we looked for it.
                if unclear is not None and (done := await self._applied(unclear)) is not None:
                    return done
                raise
            return Committed(revision, change, draft.generations)
        if unclear is not None:
            raise OutcomeUnknown(change, names, self._store.where)
        raise LedgerBusy(f"{names[0]}: others change it again and again; nothing was written")

    async def _applied(self, draft: Draft) -> Committed | None:
        """The draft's own commit, if the store has it."""
        entry = await self._store.get(draft.witness)
        recorded = read_recorded(entry) if entry is not None else None
        if recorded is None or recorded.entry.change != draft.change:
            return None
        return Committed(recorded.revision, draft.change, draft.generations)

    async def _forget(self, lease: int) -> None:
        try:
            await self._store.revoke(lease)
        except StoreError:
            pass  # it ends by itself
