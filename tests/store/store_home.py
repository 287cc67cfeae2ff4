"""Places for stores, and following what a watch says."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.config.store.opening import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.config.store.store import Change, Entry, Store

LIMIT_S = 15.0  # for what happens at once, on a machine that is busy with other things


class StoreHome(Protocol):
    """Where tests open stores of one kind. Each fresh one is empty."""

    def fresh(self) -> str:
        """Return the URL of a store that nobody has used."""
        ...

    async def compact(self, url: str) -> None:
        """Make the store forget what was deleted before now."""
        ...


@dataclass
class Home:
    """One store, opened as often as a test wants to."""

    place: StoreHome
    url: str

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(self.url)

    def another(self) -> Home:
        return Home(self.place, self.place.fresh())

    async def compact(self) -> None:
        await self.place.compact(self.url)


@dataclass
class Replica:
    """What one knows who does what a watch says, with the promises about changes checked on the way."""

    values: dict[str, bytes] = field(default_factory=dict)  # {key: value}
    revision: int = 0

    def apply(self, change: Change) -> None:
        put = {entry.key: entry for entry in change.puts}
        assert len(put) == len(change.puts), "a key is put twice"
        assert not set(put) & set(change.deletes), "a key is in both"
        assert change.revision > self.revision or (change.resync and change.revision >= self.revision)
        assert all(entry.revision <= change.revision for entry in change.puts)
        if change.resync:
            assert not change.deletes
            self.values.clear()
        else:
            assert put or change.deletes, "nothing has changed"
            assert all(entry.revision > self.revision for entry in change.puts), "a repetition"
        self.revision = change.revision
        for key in change.deletes:
            self.values.pop(key, None)
        self.values.update({key: entry.value for key, entry in put.items()})


@contextlib.asynccontextmanager
async def closing(watch: AsyncIterator[Change]) -> AsyncIterator[AsyncIterator[Change]]:
    try:
        yield watch
    finally:
        await watch.aclose()


async def following(watch: AsyncIterator[Change], limit_s: float = LIMIT_S) -> Change:
    """Return the next change."""
    async with asyncio.timeout(limit_s):
        return await anext(watch)


async def follow_to(watch: AsyncIterator[Change], replica: Replica, revision: int) -> None:
    """Apply changes until the replica has reached a revision."""
    async with asyncio.timeout(LIMIT_S):
        while replica.revision < revision:
            replica.apply(await anext(watch))


def values(entries: tuple[Entry, ...]) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in entries}
