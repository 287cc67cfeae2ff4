"""From changes to the commit that makes them: reads what stands, refuses what may not be, drafts the rest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.config.difference import same
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.gateway_document import GatewayDocument, validate_gateway
from gateway.config.holding import read_document, read_history, read_standing
from gateway.config.kinds import GATEWAY
from gateway.config.meanwhile import ChangedMeanwhile, Meanwhile
from gateway.config.refusal import ChangeRefused, Refusal, ending_problems, override_problems, problems_of
from gateway.config.store.store import MAX_WRITES, Delete, Expect, Span
from gateway.config.transaction import Author, Draft, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import datetime

    from gateway.config.change import DocumentChange
    from gateway.config.history import Action
    from gateway.config.kinds import DocumentName
    from gateway.config.standing import InForce, Standing
    from gateway.config.store.store import Store
    from gateway.config.stored import Stored

T = TypeVar("T")

MAX_DOCUMENTS: Final = 60  # two writes each, of the 128 that a store takes, and room for deleting old history


@dataclass(frozen=True, slots=True)
class Policy:
    """The gateway's document, as far as changes depend on it."""

    revision: int
    document: GatewayDocument


class Drafting:
    """Every draft expects all that it was decided by, so that it is committed only while that holds. What
    drafts raises StoreError, ChangeRefused and ChangedMeanwhile.
    """

    def __init__(self, store: Store, now: Callable[[], datetime], retained: int) -> None:
        self._store = store
        self._now = now
        self._retained = retained

    async def changes(self, changes: Sequence[DocumentChange], author: Author, change: str) -> Draft:
        policy = await self.policy([each.name for each in changes])
        standings = await self.standings(changes)
        await self._refuse_meanwhile(changes, standings)
        if refusals := refusals_of(changes, standings, policy.document):
            raise ChangeRefused(refusals)
        draft = Draft(change, author, self._now())
        for each, standing in zip(changes, standings, strict=True):
            draft.put(standing, each.document, Step(each.action, each.restored, each.based_on))
        return await self._completed(draft, policy, standings)

    async def override(self, model: DocumentName, new: InForce, author: Author) -> Draft:
        policy = await self.policy([model])
        standing = await read_standing(self._store, model)
        if problems := override_problems(standing, new, policy.document):
            raise ChangeRefused([Refusal(model, problems)])
        draft = Draft(new.override.change, author, self._now())
        draft.put_override(standing, new)
        return await self._completed(draft, policy, [standing])

    async def end_overrides(
        self, model: DocumentName, ids: tuple[str, ...], author: Author, action: Action, change: str
    ) -> Draft:
        policy = await self.policy([model] if action != "expiry" else [])
        standing = await read_standing(self._store, model)
        binding = policy.document if action != "expiry" else None
        if problems := ending_problems(standing, ids, binding):
            raise ChangeRefused([Refusal(model, problems)])
        draft = Draft(change, author, self._now())
        draft.end_overrides(standing, [each for each in standing.overrides if each.id in ids], action)
        return await self._completed(draft, policy, [standing])

    async def _completed(self, draft: Draft, policy: Policy, standings: Sequence[Standing]) -> Draft:
        """Guard what was decided by the gateway's document, and delete history that is too old, as far as
        the commit has room.
        """
        if not any(standing.name == GATEWAY for standing in standings):
            draft.expect.append(Expect(GATEWAY.key, policy.revision))
        for standing in standings:
            room = MAX_WRITES - len(draft.writes)
            oldest = draft.generations[standing.name] - self._retained + 1
            if oldest > 1 and room > 0:
                span = Span(standing.name.history.start, standing.name.history_key(oldest))
                old = (await self._store.read(span)).entries
                draft.writes += [Delete(entry.key) for entry in old[:room]]
        return draft

    async def _refuse_meanwhile(
        self, changes: Sequence[DocumentChange], standings: Sequence[Standing]
    ) -> None:
        """Raises ChangedMeanwhile."""
        found: list[Meanwhile] = []
        for change, standing in zip(changes, standings, strict=True):
            base = change.base.revision if change.base is not None else 0
            if (standing.stored.revision if standing.stored is not None else 0) != base:
                if change.base is not None and _is_as_it_was(change.base, standing.stored):
                    continue
                history = await read_history(self._store, change.name)
                since = tuple(recorded for recorded in history if recorded.revision > base)
                found.append(Meanwhile(change.name, change.base, change.document, standing.stored, since))
        if found:
            raise ChangedMeanwhile(found)

    async def standings(self, changes: Sequence[DocumentChange]) -> list[Standing]:
        """As many at a time as a commit has, which no store finds too many."""
        found: list[Standing] = []
        for begin in range(0, len(changes), MAX_DOCUMENTS):
            some = changes[begin : begin + MAX_DOCUMENTS]
            found += await _together([read_standing(self._store, change.name) for change in some])
        return found

    async def policy(self, names: Sequence[DocumentName]) -> Policy:
        """While it is invalid, nobody knows which models are frozen. Raises ChangeRefused."""
        stored = await read_document(self._store, GATEWAY)
        if stored is None:
            return Policy(0, GatewayDocument())
        try:
            if stored.data is None:
                raise DocumentInvalid([Problem("", stored.problem)])
            return Policy(stored.revision, validate_gateway(stored.data))
        except DocumentInvalid as error:
            if all(name.kind != "model" for name in names):
                return Policy(stored.revision, GatewayDocument())
            hint = Problem("", "which models are frozen is not known before this is corrected")
            raise ChangeRefused([Refusal(GATEWAY, (*error.problems, hint))]) from error


def refusals_of(
    changes: Sequence[DocumentChange], standings: Sequence[Standing], policy: GatewayDocument
) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(change.name, problems)
        for change, standing in zip(changes, standings, strict=True)
        if (problems := problems_of(change.document, standing, policy))
    )


async def _together(work: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """Their results, in order; the first error as it is, after the others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _is_as_it_was(base: Stored, now: Stored | None) -> bool:
    """Whether a document was only written again: that is what the end of an override does."""
    return now is not None and base.data is not None and now.data is not None and same(base.data, now.data)
