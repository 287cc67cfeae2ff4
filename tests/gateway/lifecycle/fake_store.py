"""A store in memory whose watch does what a test says. `test_fake_store.py` compares it with a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from gateway.config.store.store import Change, Entry, Put
from gateway.lifecycle.last_good import LastGood

if TYPE_CHECKING:
    from gateway.config.store.store import Write
    from gateway.lifecycle.store_source import StoreSource

LIMIT_S = 10.0


class FakeStore:
    """`away` and `silent` are set by tests: a silent store answers nobody before `answer`."""

    where = "the fake store"

    def __init__(self, *, silent: bool = False) -> None:
        self.away = ""
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.watches = 0
        self._answers = asyncio.Event()
        if not silent:
            self._answers.set()
        self._queues: list[asyncio.Queue[Change | Exception]] = []

    def answer(self) -> None:
        self.away = ""
        self._answers.set()

    def commit(self, *writes: Write) -> int:
        """Apply writes in one revision, and tell the watches of it."""
        self.revision += 1
        puts, deletes = [], []
        for write in writes:
            if isinstance(write, Put):
                entry = Entry(write.key, write.value, self.revision, write.lease)
                self.entries[write.key] = entry
                puts.append(entry)
            elif self.entries.pop(write.key, None) is not None:
                deletes.append(write.key)
        if puts or deletes:
            self.say(Change(self.revision, _sorted(puts), tuple(sorted(deletes))))
        return self.revision

    def put(self, key: str, value: object) -> int:
        return self.commit(Put(key, value if isinstance(value, bytes) else json.dumps(value).encode()))

    def everything(self) -> Change:
        return Change(self.revision, _sorted(self.entries.values()), resync=True)

    def resync(self) -> None:
        """The watch could not be resumed: it reads everything again."""
        self.say(self.everything())

    def restore(self, revision: int, entries: dict[str, bytes]) -> None:
        """A backup takes the place of what was there."""
        self.revision = revision
        self.entries = {key: Entry(key, value, revision) for key, value in entries.items()}
        self.resync()

    def say(self, what: Change | Exception) -> None:
        for queue in self._queues:
            queue.put_nowait(what)

    async def watch(self, span, *, after=None):
        self.watches += 1
        await self._answers.wait()
        queue: asyncio.Queue[Change | Exception] = asyncio.Queue()
        self._queues.append(queue)
        try:
            yield self._within(span, self.everything())
            while True:
                said = await queue.get()
                if isinstance(said, Exception):
                    raise said
                within = self._within(span, said)
                if within.puts or within.deletes or within.resync:
                    yield within
        finally:
            self._queues.remove(queue)

    def _within(self, span, change: Change) -> Change:
        puts = tuple(entry for entry in change.puts if entry.key in span)
        deletes = tuple(key for key in change.deletes if key in span)
        return Change(change.revision, puts, deletes, change.resync)


def _sorted(entries) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.key.encode()))


class NotingLastGood(LastGood):
    """Says when it has saved."""

    def __init__(self, path, store="the fake store") -> None:
        super().__init__(path, store)
        self._loop = asyncio.get_running_loop()
        self.saves = asyncio.Semaphore(0)

    def save(self, documents, *, only=None):
        try:
            super().save(documents, only=only)
        finally:
            self._loop.call_soon_threadsafe(self.saves.release)


class Follower:
    """Asks a source for one snapshot after the other."""

    def __init__(self, source: StoreSource, last_good: NotingLastGood | None = None) -> None:
        self.source = source
        self._last_good = last_good
        self._changes = source.changes()
        self.now = None

    async def next(self):
        async with asyncio.timeout(LIMIT_S):
            self.now = await anext(self._changes)
        if self._last_good is not None:
            self._last_good.saves = asyncio.Semaphore(0)  # of the snapshots before this one
        return self.now

    async def end(self) -> None:
        """End as a process does that has been told, once the last snapshot is on the disk."""
        task = asyncio.ensure_future(anext(self._changes))
        if self._last_good is not None:
            async with asyncio.timeout(LIMIT_S):
                await self._last_good.saves.acquire()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._changes.aclose()

    async def close(self) -> None:
        await self._changes.aclose()
