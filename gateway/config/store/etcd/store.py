"""The store in etcd 3.4 and newer.

An entry's revision is its `mod_revision`. A snapshot's and a `resync`'s is the cluster's: it rises with every
key of every user of the cluster, so it says where a watch goes on, and not which configuration is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

from aetcd import rpc

from gateway.config.store.etcd.failure import Answered, Cause
from gateway.config.store.etcd.keyspace import KeySpace
from gateway.config.store.etcd.news import News
from gateway.config.store.etcd.reading import Reader
from gateway.config.store.etcd.session import Session
from gateway.config.store.etcd.transaction import check_size, found_in, request_of
from gateway.config.store.etcd.watching import Watcher
from gateway.config.store.store import (
    Change,
    CommitTooLarge,
    Conflict,
    Entry,
    Expect,
    LeaseGone,
    Put,
    Snapshot,
    Span,
    StoreAway,
    StoreError,
    Write,
)

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from gateway.config.store.etcd.address import EtcdAddress
    from gateway.config.store.etcd.endpoint import Endpoint
    from gateway.config.store.etcd.session import Method
    from gateway.config.store.etcd.timing import Timing


_MAX_TTL_S: Final = 1e9  # etcd takes 9e9


@contextlib.asynccontextmanager
async def open_etcd(
    address: EtcdAddress, timing: Timing | None = None, random: random.Random | None = None
) -> AsyncIterator[EtcdStore]:
    """Does not wait for etcd. Raises StoreInvalid."""
    session = Session(address, timing, random)
    try:
        yield EtcdStore(session)
    finally:
        await session.close()


class EtcdStore:
    """Behind `Store`. The session belongs to whoever made it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = KeySpace(f"{session.address.prefix}/")
        self._reader = Reader(session, self._keys)

    @property
    def where(self) -> str:
        return str(self._session.address)

    @property
    def away(self) -> str:
        return self._session.away

    async def read(self, span: Span, *, last: int | None = None) -> Snapshot:
        if last is not None and last < 1:
            raise ValueError(f"last is {last}: it must be at least 1")
        listing = await self._reader.read(span, last=last)
        return Snapshot(listing.revision, tuple(map(self._keys.entry, listing.found)))

    async def get(self, key: str) -> Entry | None:
        request = rpc.RangeRequest(key=self._keys.encode(key))
        reply = await self._session.ask(_range, request, f"read {self._keys.prefix}{key}")
        return self._keys.entry(reply.kvs[0]) if reply.kvs else None

    async def commit(self, writes: Sequence[Write], expect: Sequence[Expect] = ()) -> int:
        """Also raises ValueError for a key that is written twice."""
        check_size(writes, expect)
        keys = sorted({write.key for write in writes})
        what = f"write {', '.join(self._keys.prefix + key for key in keys[:5])}{', ...' if keys[5:] else ''}"
        request = request_of(self._keys, writes, expect)
        try:
            reply = await self._session.ask_once(lambda endpoint: endpoint.kv.Txn, request, what)
        except Answered as error:
            raise await self._commit_error(error, writes, expect) from None
        if not reply.succeeded:
            raise Conflict(found_in(self._keys, reply, expect))
        revision: int = reply.header.revision
        return revision

    async def watch(self, span: Span, *, after: int | None = None) -> AsyncGenerator[Change, None]:
        """Changes are of whole revisions; what the reader is slow to take comes as one. Also raises
        RuntimeError when the store is closed first, and ValueError for a span that can hold no key.
        """
        if span.start >= span.end:
            raise ValueError(f"{span} can hold no key")
        news = News()
        watcher = Watcher(self._session, self._reader, self._keys, span, news.add)
        task = asyncio.create_task(watcher.run(after))
        task.add_done_callback(lambda _: news.wake())
        try:
            while True:
                change = news.take_nowait()
                if change is not None:
                    yield change
                elif task.done():
                    if task.cancelled():
                        raise RuntimeError("the store was closed before its watch")
                    task.result()  # raises: a watch has no other end
                else:
                    await news.wait()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def grant(self, ttl_s: float) -> int:
        """etcd counts whole seconds, and has a least time of its own (2 s by default): a lease may live
        longer than asked for.
        """
        if not math.isfinite(ttl_s) or ttl_s > _MAX_TTL_S:
            raise ValueError(f"a lease of {ttl_s:g} s: the longest is {_MAX_TTL_S:g} s")
        request = rpc.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))
        reply = await self._session.ask(lambda endpoint: endpoint.lease.LeaseGrant, request, "grant a lease")
        lease: int = reply.ID
        return lease

    async def renew(self, lease: int) -> None:
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        reply = await self._ask_about(lease, lambda endpoint: endpoint.keep_alive, request, "renew a lease")
        if reply.TTL <= 0:
            raise _gone(lease)

    async def revoke(self, lease: int) -> None:
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            await self._ask_about(
                lease, lambda endpoint: endpoint.lease.LeaseRevoke, request, "revoke a lease"
            )
        except LeaseGone:
            pass

    async def remaining_s(self, lease: int) -> float:
        """etcd tells whole seconds and leaves out what is left beside them: this is never too little."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        reply = await self._ask_about(
            lease, lambda endpoint: endpoint.lease.LeaseTimeToLive, request, "look at a lease"
        )
        if reply.TTL < 0:
            raise _gone(lease)
        return float(min(reply.TTL + 1, reply.grantedTTL))

    async def _ask_about(self, lease: int, method: Method, request: Any, what: str) -> Any:
        try:
            return await self._session.ask(method, request, what)
        except Answered as error:
            if error.cause is Cause.NO_LEASE:
                raise _gone(lease) from None
            raise

    async def _commit_error(
        self, error: Answered, writes: Sequence[Write], expect: Sequence[Expect]
    ) -> StoreError:
        match error.cause:
            case Cause.TOO_LARGE:
                return CommitTooLarge(str(error))
            case Cause.NO_LEASE:
                return LeaseGone(f"{error}; one of the leases {_leases_of(writes)}")
            case Cause.REPLY_TOO_LARGE:
                # Only a conflict has a large answer: what was found instead, up to 128 values.
                found = {each.key: await self.get(each.key) for each in expect}
                for each in expect:
                    entry = found[each.key]
                    if (entry.revision if entry else 0) == each.revision:
                        del found[each.key]
                return Conflict(found) if found else StoreAway(f"{self.where}: changed while it was read")
        return error


def _range(endpoint: Endpoint) -> Any:
    return endpoint.kv.Range


def _gone(lease: int) -> LeaseGone:
    return LeaseGone(f"the lease {lease:x} has expired or was revoked")


def _leases_of(writes: Sequence[Write]) -> str:
    leases = {write.lease for write in writes if isinstance(write, Put) and write.lease}
    return ", ".join(f"{lease:x}" for lease in sorted(leases))
