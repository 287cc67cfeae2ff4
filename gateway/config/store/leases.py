"""Entries that are there for as long as somebody keeps them: who serves, how its models are, who leads."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from gateway.config.store.store import (
    MAX_COMMIT_BYTES,
    MAX_WRITES,
    CommitTooLarge,
    Delete,
    LeaseGone,
    Put,
    StoreError,
    StoreRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from gateway.clock import Clock
    from gateway.config.store.store import Change, Span, Store, Write

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_REVOKE_S: Final = 2.0
_HEAL_PAUSE_S: Final = 1.0
_REFUSED_PAUSE_S: Final = 30.0


class LeaseKeeper:
    """Keeps entries under one lease, as a context manager: they go when it ends, or within `ttl_s` after its
    process has died.

    It works on whatever happens to the store, from the start: what cannot be written now is written later,
    the latest value of each key only. When the lease is gone, all that it keeps is written again under a new
    one. What somebody else deletes in one of the `watched` spans is written again; what somebody else writes
    is left alone. `problem` says what stands in the way.
    """

    def __init__(self, store: Store, ttl_s: float, clock: Clock, watched: Sequence[Span] = ()) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._clock = clock
        self._watched = watched
        self._kept: dict[str, bytes] = {}  # {key: value}
        self._unwritten: dict[str, None] = {}  # keys, oldest first: to be deleted, unless they are kept
        self._written: dict[str, int] = {}  # {key: the revision at which it was written}
        self._gone: dict[str, int] = {}  # {key: the revision at which it was seen to be missing}
        self._lease = 0  # 0: none yet, or it is gone
        self._renew_at_ns = 0
        self._problem = ""
        self._settling = False  # a round is under way
        self._changed = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []  # for the end of the next round
        self._task: asyncio.Task[None] | None = None
        self._watches: list[asyncio.Task[None]] = []

    @property
    def problem(self) -> str:
        """Why the store may not hold what is kept, '' while it does."""
        return self._problem

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="lease keeper")
        self._watches = [
            asyncio.create_task(self._watch(span), name=f"lease keeper of {span.start}")
            for span in self._watched
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Delete what is kept, if the store can be reached within two seconds; else it expires."""
        task, self._task = self._task, None
        if task is None:
            return
        tasks = [task, *self._watches]
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        self._tell(self._waiting)
        if self._lease:
            try:
                async with asyncio.timeout(_REVOKE_S):
                    await self._store.revoke(self._lease)
            except (StoreError, TimeoutError):
                pass  # it expires

    async def put(self, entries: Mapping[str, bytes]) -> None:
        """Keep entries, in place of what was kept under their keys. Return when the store has them; while
        there is a problem, at once. Cancelled, they are kept nevertheless.

        Raises:
            CommitTooLarge: one of them can never be written; none is kept.
        """
        for key, value in entries.items():
            if _size(key, value) > MAX_COMMIT_BYTES:
                raise CommitTooLarge(f"{key} has {len(value):,} bytes: the most is {MAX_COMMIT_BYTES:,}")
        changed = [key for key, value in entries.items() if self._kept.get(key) != value]
        self._kept.update(entries)
        await self._change(changed)

    async def delete(self, keys: Iterable[str]) -> None:
        """Keep these no longer; returns as `put` does. Keys that are not kept are left alone."""
        gone = [key for key in keys if self._kept.pop(key, None) is not None]
        await self._change(gone)

    async def _change(self, keys: Iterable[str]) -> None:
        if self._task is None:
            raise RuntimeError("the lease keeper is not open")
        self._unwritten.update(dict.fromkeys(keys))
        if self._problem or not (self._unwritten or self._settling):
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._changed.set()
        await done

    async def _keep(self) -> None:
        failures = 0
        while True:
            self._changed.clear()
            waiting, self._waiting = self._waiting, []
            self._settling = True
            try:
                await self._settle()
            except StoreError as error:
                failures += 1
                self._problem = str(error)
            except Exception as error:
                # A bug. What is kept must not be lost for it: the gateway would serve, and nobody knew.
                failures += 1
                self._problem = f"internal error, see the log: {error!r}"
                log.exception("entries could not be kept in %s", self._store.where)
            else:
                failures = 0
                self._problem = ""
            finally:
                self._settling = False
                self._tell(waiting)
            if failures:
                await asyncio.sleep(self._retry_s(failures))
            else:
                await self._until_due()

    async def _watch(self, span: Span) -> None:
        """Notice what is missing in a span. Whoever deletes again and again is not raced."""
        while True:
            try:
                async with aclosing(self._store.watch(span)) as changes:
                    async for change in changes:
                        if self._miss(change, span):
                            await asyncio.sleep(_HEAL_PAUSE_S)
            except StoreRefused as error:
                log.error("deletions in %s cannot be noticed: %s", self._store.where, error)
            except Exception:  # a bug, for which nothing that is kept may be lost
                log.exception("deletions in %s cannot be noticed", self._store.where)
            await asyncio.sleep(_REFUSED_PAUSE_S)

    def _miss(self, change: Change, span: Span) -> bool:
        """Have what is kept and was deleted written again; return whether there is any."""
        gone: Iterable[str] = change.deletes
        if change.resync:
            there = {entry.key for entry in change.puts}
            gone = [key for key in self._kept if key in span and key not in there]
        missing = []
        for key in gone:
            if key in self._kept and key not in self._unwritten:
                self._gone[key] = change.revision
                written = self._written.get(key)  # None: it is on its way, and may be newer than the news
                if written is not None and written <= change.revision:
                    missing.append(key)
        if not missing:
            return False
        log.warning(
            "%s and %d more are gone from %s and are written again",
            missing[0],
            len(missing) - 1,
            self._store.where,
        )
        self._unwritten.update(dict.fromkeys(missing))
        self._changed.set()
        return True

    async def _settle(self) -> None:
        """Bring the store to what is kept."""
        try:
            await self._renew()
            await self._write()
        except LeaseGone:
            self._lease = 0
            await self._write()

    async def _renew(self) -> None:
        now_ns = self._clock.now_ns()
        if self._lease and now_ns >= self._renew_at_ns:
            await self._store.renew(self._lease)
            self._renewed(now_ns)

    async def _write(self) -> None:
        if not self._lease and self._kept:
            now_ns = self._clock.now_ns()
            self._lease = await self._store.grant(self._ttl_s)
            self._renewed(now_ns)
            self._unwritten.update(dict.fromkeys(self._kept))
        while batch := self._batch():
            for key in batch:
                del self._unwritten[key]  # it may be changed again meanwhile
                self._written.pop(key, None)
                self._gone.pop(key, None)
            try:
                revision = await self._store.commit(list(batch.values()))
            except BaseException:
                self._unwritten.update(dict.fromkeys(batch))
                raise
            for key, write in batch.items():
                if isinstance(write, Put):
                    self._written[key] = revision
                    if self._gone.get(key, 0) >= revision:
                        self._unwritten[key] = None  # deleted before we were told that it is written

    def _batch(self) -> dict[str, Write]:
        """Return as much as goes into one commit."""
        batch: dict[str, Write] = {}
        room = MAX_COMMIT_BYTES
        for key in self._unwritten:
            value = self._kept.get(key)
            room -= _size(key, value or b"")
            if len(batch) == MAX_WRITES or room < 0:
                break
            batch[key] = Delete(key) if value is None else Put(key, value, self._lease)
        return batch

    def _renewed(self, asked_ns: int) -> None:
        """The store may have done it as early as it was asked."""
        self._renew_at_ns = asked_ns + int(self._ttl_s * 1e9 / 3)

    async def _until_due(self) -> None:
        """Wait for the next renewal, or a change."""
        due_s = (self._renew_at_ns - self._clock.now_ns()) / 1e9 if self._lease else None
        try:
            async with asyncio.timeout(due_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _retry_s(self, failures: int) -> float:
        limit_s = min(_LAST_RETRY_S, self._ttl_s / 3)
        delay_s = min(_FIRST_RETRY_S * 2.0 ** min(failures - 1, 10), limit_s)
        return delay_s * random.uniform(0.5, 1.0)  # not all gateways at once

    @staticmethod
    def _tell(waiting: list[asyncio.Future[None]]) -> None:
        for each in waiting:
            if not each.done():
                each.set_result(None)


def _size(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value)
