"""Elects one of many, and fences what it writes: whoever was leader and does not know that it is no more has
its next write refused by the store itself.

A leader holds `elections/<name>` under a lease. Its fence is the revision at which it wrote that entry: each
of its commits expects it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.config.keys import election_key
from gateway.config.store.store import (
    Conflict,
    Expect,
    LeaseGone,
    Put,
    Span,
    StoreAway,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from gateway.config.store.store import Change, Entry, Snapshot, Store, Write

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class Deposed(StoreError):
    """Somebody else leads by now; nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not this process's any more; its write was refused")


class FencedStore:
    """The store of a leader: commits apply only while it leads. They raise Deposed beside all else."""

    def __init__(self, store: Store, fence: Expect) -> None:
        self._store = store
        self._fence = fence

    @property
    def where(self) -> str:
        return self._store.where

    @property
    def away(self) -> str:
        return self._store.away

    async def read(self, span: Span, *, last: int | None = None) -> Snapshot:
        return await self._store.read(span, last=last)

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def commit(self, writes: Sequence[Write], expect: Sequence[Expect] = ()) -> int:
        try:
            return await self._store.commit(writes, [*expect, self._fence])
        except Conflict as error:
            if self._fence.key in error.found:
                raise Deposed(self._fence.key) from error
            raise

    def watch(self, span: Span, *, after: int | None = None) -> AsyncGenerator[Change, None]:
        return self._store.watch(span, after=after)

    async def grant(self, ttl_s: float) -> int:
        return await self._store.grant(ttl_s)

    async def renew(self, lease: int) -> None:
        await self._store.renew(lease)

    async def revoke(self, lease: int) -> None:
        await self._store.revoke(lease)

    async def remaining_s(self, lease: int) -> float:
        return await self._store.remaining_s(lease)


class Election:
    """`run` campaigns for ever; while this process leads it runs `lead` with a store that is fenced."""

    def __init__(
        self,
        store: Store,
        name: str,
        candidate: str,
        lead: Callable[[FencedStore], Awaitable[None]],
        *,
        ttl_s: float = 10.0,
    ) -> None:
        self.leading = False
        self._store = store
        self._key = election_key(name)
        self._candidate = candidate
        self._lead = lead
        self._ttl_s = ttl_s

    async def run(self) -> None:
        """Until cancelled. A store that is away, and a lead that fails for the store's sake, are tried
        again.
        """
        while True:
            try:
                await self._campaign()
            except StoreError as error:
                log.info("the election of %s: %s", self._key, error)
            await asyncio.sleep(_RETRY_S * random.uniform(0.5, 1.5))

    async def _campaign(self) -> None:
        """Wait for the seat to be free, take it, and hold it for as long as that goes."""
        await self._vacancy()
        lease = await self._store.grant(self._ttl_s)
        try:
            put = Put(self._key, self._candidate.encode(), lease)
            revision = await self._store.commit([put], [Expect(self._key, 0)])
        except Conflict:
            await self._store.revoke(lease)
            return  # another was faster
        fenced = FencedStore(self._store, Expect(self._key, revision))
        self.leading = True
        log.info("this process leads %s", self._key)
        try:
            await self._hold(lease, fenced)
        finally:
            self.leading = False
            log.info("this process does not lead %s any more", self._key)
            try:
                async with asyncio.timeout(2.0):
                    await self._store.revoke(lease)
            except (StoreError, TimeoutError):
                pass  # it expires

    async def _vacancy(self) -> None:
        async with aclosing(self._store.watch(Span.one(self._key))) as watch:
            async for change in watch:
                if not change.puts:
                    return

    async def _hold(self, lease: int, store: FencedStore) -> None:
        """Lead until the lease cannot be held, or leading fails. Raises StoreError."""
        lead = asyncio.ensure_future(self._lead(store))
        keep = asyncio.ensure_future(self._keep(lease))
        try:
            done, _ = await asyncio.wait((lead, keep), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            lead.cancel()
            keep.cancel()
            await asyncio.gather(lead, keep, return_exceptions=True)

    async def _keep(self, lease: int) -> None:
        """Renew the lease. Raises LeaseGone, also where it must be feared."""
        loop = asyncio.get_running_loop()
        held_until_s = loop.time() + self._ttl_s
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            asked_s = loop.time()
            try:
                await self._store.renew(lease)
                held_until_s = asked_s + self._ttl_s
            except StoreAway as error:
                if loop.time() > held_until_s:
                    raise LeaseGone(f"the lease of {self._key} could not be renewed: {error}") from error
