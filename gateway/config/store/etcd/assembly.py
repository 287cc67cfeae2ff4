"""Puts the messages of etcd's watch together to changes of whole revisions, and knows what it has told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetcd import rpc

from gateway.config.store.store import Change
from gateway.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.store.etcd.keyspace import KeySpace
    from gateway.config.store.store import Entry


class Assembly:
    """The state of a watched span, as far as it was told: up to and including `revision`.

    etcd never splits a revision over two messages, but for fragments of one message
    (https://etcd.io/docs/v3.5/learning/api_guarantees/, "Atomic"), so what a message holds is told once its
    last fragment is here. What is not newer than `revision` is a repetition.
    """

    def __init__(self, keys: KeySpace) -> None:
        self._keys = keys
        self._fragments: list[Any] = []  # mvccpb.Event
        self._told: dict[str, int] = {}  # {key: revision of its entry}
        self.revision = 0

    async def begin(self, revision: int, found: Iterable[Any]) -> None:
        """Start from what there was at a revision, which was told before."""
        self._told = await self._revisions(found)
        self.revision = revision

    async def reset(self, revision: int, found: Iterable[Any]) -> Change:
        """Start from everything that there is, and tell it."""
        await self.begin(revision, found)
        turn, entries = Turn(), []
        for kv in found:
            entries.append(self._keys.entry(kv))
            await turn.give_way()
        return Change(revision, tuple(entries), resync=True)

    def interrupt(self) -> None:
        """The stream ended: what came of an unfinished message will come again."""
        self._fragments.clear()

    def add(self, reply: Any) -> Change | None:
        """Take a `WatchResponse` with events; return what it completes."""
        self._fragments.extend(reply.events)
        if reply.fragment:
            return None
        events, self._fragments = self._fragments, []
        return self._fold(events)

    def advance(self, revision: int) -> None:
        """Nothing that was not told has happened up to this revision."""
        self.revision = max(self.revision, revision)

    async def equals(self, found: Iterable[Any]) -> bool:
        """Whether what was told is what there is."""
        return self._told == await self._revisions(found)

    async def _revisions(self, found: Iterable[Any]) -> dict[str, int]:
        turn, revisions = Turn(), {}
        for kv in found:
            revisions[self._keys.decode(kv.key)] = kv.mod_revision
            await turn.give_way()
        return revisions

    def _fold(self, events: Iterable[Any]) -> Change | None:
        puts: dict[str, Entry] = {}
        deletes: set[str] = set()
        told_until = self.revision
        for event in events:
            revision: int = event.kv.mod_revision
            if revision <= told_until:
                continue
            self.revision = max(self.revision, revision)
            key = self._keys.decode(event.kv.key)
            if event.type == rpc.Event.PUT:
                puts[key] = self._keys.entry(event.kv)
                deletes.discard(key)
                self._told[key] = revision
            else:
                puts.pop(key, None)
                deletes.add(key)
                self._told.pop(key, None)
        if self.revision == told_until:
            return None
        return Change(self.revision, tuple(puts.values()), tuple(deletes))
