"""Reads a span in pages, all of them at the revision of the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aetcd import rpc

from gateway.config.store.etcd.failure import Answered, Cause
from gateway.config.store.store import StoreAway

if TYPE_CHECKING:
    from gateway.config.store.etcd.keyspace import KeySpace
    from gateway.config.store.etcd.session import Session
    from gateway.config.store.store import Span

PAGE_KEYS: Final = 500
# So large is a page that a slow network carries in the time of a try. How large entries are, the first tells.
_PAGE_BYTES: Final = 4 << 20
_FIRST_PAGE_KEYS: Final = 50
_MOST_STARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """What a span held at `revision`, ascending by key, and where that was read."""

    revision: int  # of the whole cluster when it was read, or the one that was asked for
    cluster: int
    term: int
    found: tuple[Any, ...]  # mvccpb.KeyValue


class Reader:
    """Reads of one session below one prefix."""

    def __init__(self, session: Session, keys: KeySpace) -> None:
        self._session = session
        self._keys = keys

    async def read(self, span: Span, *, last: int | None = None) -> Listing:
        """What there is now; with `last` only so many of the highest keys. A compaction between two pages
        starts it again.

        Raises StoreAway and StoreRefused.
        """
        for _ in range(_MOST_STARTS):
            try:
                return await self._pages(span, 0, last, keys_only=False)
            except Answered as error:
                if error.cause not in (Cause.COMPACTED, Cause.FUTURE):
                    raise
        raise StoreAway(
            f"{self._session.address}: compacted faster than {self._keys.shown(span)} can be read"
        )

    async def revisions(self, span: Span, at: int) -> Listing:
        """What there was at a revision, without the values. Raises StoreAway, StoreRefused, and Answered when
        that revision was compacted or lies ahead.
        """
        return await self._pages(span, at, None, keys_only=True)

    async def probe(self, span: Span, at: int) -> Listing:
        """One entry of then at most: whether a watch could go on from `at`. Raises as `revisions` does."""
        return await self._pages(span, at, 1, keys_only=True)

    async def _pages(self, span: Span, at: int, last: int | None, *, keys_only: bool) -> Listing:
        start, end = self._keys.encode(span.start), self._keys.encode(span.end)
        limit = PAGE_KEYS if keys_only else _FIRST_PAGE_KEYS
        found: list[Any] = []
        header: Any = None
        while True:
            wanted = limit if last is None else min(limit, last - len(found))
            request = rpc.RangeRequest(
                key=start, range_end=end, limit=wanted, revision=at, keys_only=keys_only
            )
            if last is not None:
                request.sort_order, request.sort_target = rpc.RangeRequest.DESCEND, rpc.RangeRequest.KEY
            try:
                reply = await self._session.ask(
                    lambda endpoint: endpoint.kv.Range, request, f"read {self._keys.shown(span)}"
                )
            except Answered as error:
                if error.cause is not Cause.REPLY_TOO_LARGE or limit == 1:
                    raise
                limit //= 2
                continue
            header = header or reply.header
            at = at or header.revision
            found.extend(reply.kvs)
            if not reply.more or len(found) == last:
                break
            limit = max(min(_PAGE_BYTES * len(reply.kvs) // reply.ByteSize(), PAGE_KEYS), 1)
            if last is None:
                start = found[-1].key + b"\0"
            else:
                end = found[-1].key
        if last is not None:
            found.reverse()
        return Listing(at, header.cluster_id, header.raft_term, tuple(found))
