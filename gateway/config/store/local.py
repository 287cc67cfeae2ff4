"""The store `local`: one SQLite file, for gateways and commands of one machine.

Guarantees, beyond those of every store: a commit that was answered survives the process and a power cut.
Other processes see it within the time between two polls. A file that was deleted, moved or replaced under a
running gateway is noticed, and so is a backup that was restored into it: watches begin again with a `resync`.

All of SQLite's work is done in one thread for each store; the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.config.store.local_boot import BootClock
from gateway.config.store.local_file import LocalFile, Position
from gateway.config.store.local_thread import LocalThread
from gateway.config.store.store import (
    MAX_COMMIT_BYTES,
    MAX_WRITES,
    CommitTooLarge,
    CommitUnclear,
    Put,
    StoreAway,
    StoreError,
    StoreRefused,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from gateway.config.store.local_boot import LeaseClock
    from gateway.config.store.store import Change, Entry, Expect, Snapshot, Span, Write

T = TypeVar("T")

POLL_S: Final = 0.05  # its cost is the waking, 0.2 ms or so: under 1 % of one CPU
_AWAY_POLL_S: Final = 0.25
_RETRY_S: Final = 0.5
# A watch that was away for longer than so many deletions reads everything again.
KEPT_DELETIONS: Final = 10_000
_MIN_TTL_S: Final = 1.0
_MAX_TTL_S: Final = 1e9


def open_local(
    path: Path,
    *,
    create: bool = True,
    clock: LeaseClock | None = None,
    kept_deletions: int = KEPT_DELETIONS,
) -> AbstractAsyncContextManager[LocalStore]:
    """Open the store in a file, and create it where there is none, readable by its owner only. It is closed
    with the context. Without `create`, one that is not there is a store that is away.

    Entering raises, with `create`:
        StoreRefused: the folder is missing, the file may not be written, is damaged, or is not ours.
        StoreAway: another process keeps the file locked, or the disk does not answer.
    """
    path = Path(os.path.abspath(path))  # the working folder may change
    return _opened(path, LocalFile(path, clock or BootClock(), kept_deletions, create=create))


@asynccontextmanager
async def _opened(path: Path, file: LocalFile) -> AsyncIterator[LocalStore]:
    store = LocalStore(path, file)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


class LocalStore:
    """Made by `open_local`."""

    def __init__(self, path: Path, file: LocalFile) -> None:
        self._where = str(path)
        self._file = file  # touched in the thread only
        self._away = ""
        self._told: tuple[int, str] | None = None  # the file's stamp and `away`, as the loop was told last
        self._watching: set[asyncio.Event] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = LocalThread(self._where, self._poll, self._poll_s)

    @property
    def where(self) -> str:
        return self._where

    @property
    def away(self) -> str:
        return self._away

    async def open(self) -> None:
        await self._call(self._file.open)

    async def close(self) -> None:
        """End the thread. Watches that were not closed raise RuntimeError."""
        await self._thread.close(self._file.close)
        self._wake()

    async def read(self, span: Span, *, last: int | None = None) -> Snapshot:
        if last is not None and last < 1:
            raise ValueError(f"last is {last}: it must be at least 1")
        return await self._call(lambda: self._file.read(span, last))

    async def get(self, key: str) -> Entry | None:
        return await self._call(lambda: self._file.get(key))

    async def commit(self, writes: Sequence[Write], expect: Sequence[Expect] = ()) -> int:
        writes, expect = tuple(writes), tuple(expect)
        _check_size(writes, expect)
        return await self._call(lambda: self._file.commit(writes, expect), CommitUnclear)

    async def watch(self, span: Span, *, after: int | None = None) -> AsyncGenerator[Change]:
        position = None if after is None else Position(after)
        with self._listening() as signal:
            while True:
                signal.clear()
                try:
                    progress = await self._call(partial(self._file.advance, span, position))
                except StoreAway:
                    await _either(signal, _RETRY_S)
                    continue
                position = progress.position
                if progress.change is not None:
                    yield progress.change
                else:
                    await signal.wait()

    async def grant(self, ttl_s: float) -> int:
        if not math.isfinite(ttl_s) or ttl_s > _MAX_TTL_S:
            raise ValueError(f"a lease of {ttl_s:g} s: the longest is {_MAX_TTL_S:g} s")
        ttl_ns = int(max(ttl_s, _MIN_TTL_S) * 1e9)
        return await self._call(lambda: self._file.grant(ttl_ns), CommitUnclear)

    async def renew(self, lease: int) -> None:
        await self._call(lambda: self._file.renew(lease), CommitUnclear)

    async def revoke(self, lease: int) -> None:
        await self._call(lambda: self._file.revoke(lease), CommitUnclear)

    async def remaining_s(self, lease: int) -> float:
        return await self._call(lambda: self._file.remaining_ns(lease)) / 1e9

    async def _call(self, work: Callable[[], T], late: type[StoreAway] = StoreAway) -> T:
        def reported() -> T:
            try:
                result = work()
            except (StoreAway, StoreRefused) as error:
                self._report(str(error))
                raise
            except StoreError:
                self._report("")
                raise
            self._report("")
            return result

        try:
            return await self._thread.call(reported, late)
        except StoreAway as error:
            self._away = str(error)  # the thread may hang, and tell nothing
            self._told = None
            raise

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Event]:
        signal = asyncio.Event()
        self._watching.add(signal)
        try:
            yield signal
        finally:
            self._watching.discard(signal)

    def _poll_s(self) -> float | None:
        """In the thread."""
        if not self._watching:
            return None
        return _AWAY_POLL_S if self._away else POLL_S

    def _poll(self) -> None:
        """In the thread."""
        try:
            self._file.poll()
        except StoreError as error:
            self._report(str(error))
        else:
            self._report("")

    def _report(self, away: str) -> None:
        """In the thread: tell the loop, if there is anything new. Polls that find nothing cost it nothing."""
        told = (self._file.stamp, away)
        if told != self._told:
            self._told = told
            self._loop.call_soon_threadsafe(self._note, away)

    def _note(self, away: str) -> None:
        self._away = away
        self._wake()

    def _wake(self) -> None:
        for signal in self._watching:
            signal.set()


async def _either(signal: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await signal.wait()
    except TimeoutError:
        pass


def _check_size(writes: Sequence[Write], expect: Sequence[Expect]) -> None:
    keys = [write.key for write in writes]
    if len(set(keys)) < len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"written twice in one commit: {', '.join(twice)}")
    for what, count in (("writes", len(writes)), ("expectations", len(expect))):
        if count > MAX_WRITES:
            raise CommitTooLarge(f"{count} {what} in one commit: the most is {MAX_WRITES}")
    size = sum(len(key.encode()) for key in keys)
    size += sum(len(write.value) for write in writes if isinstance(write, Put))
    if size > MAX_COMMIT_BYTES:
        raise CommitTooLarge(f"{size:,} bytes in one commit: the most is {MAX_COMMIT_BYTES:,}")
