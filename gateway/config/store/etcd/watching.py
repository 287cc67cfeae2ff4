"""Follows a span of keys for ever: reads it at one revision, then watches from the next one.

It goes on after whatever happens at the last revision that it told whole. Where it cannot (compaction, a
cluster restored from a backup), it reads everything again. Because several versions of etcd have lost events
(https://github.com/etcd-io/etcd/blob/main/tests/robustness/README.md), it also compares now and then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from gateway.config.store.etcd.assembly import Assembly
from gateway.config.store.etcd.failure import Answered, Cause
from gateway.config.store.etcd.stream import WATCH_ID, Canceled, StreamFailed, WatchStream
from gateway.config.store.etcd.timing import Backoff
from gateway.config.store.store import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.store.etcd.keyspace import KeySpace
    from gateway.config.store.etcd.reading import Listing, Reader
    from gateway.config.store.etcd.session import Session
    from gateway.config.store.store import Change, Span

log = logging.getLogger(__name__)

# So often in a row may etcd refuse a watch on keys that it let us read, before that counts.
_MOST_DENIALS = 3


class Watcher:
    """One watch. `tell` is called with each change, in order."""

    def __init__(
        self, session: Session, reader: Reader, keys: KeySpace, span: Span, tell: Callable[[Change], None]
    ) -> None:
        self._session = session
        self._reader = reader
        self._keys = keys
        self._span = span
        self._tell = tell
        self._assembly = Assembly(keys)
        self._known = False  # whether the assembly holds what there was at its revision
        self._origin: tuple[int, int] | None = None  # cluster, and the highest term of its elections seen
        self._backoff = Backoff(session.timing, session.random)
        self._denials = 0
        self._is_interrupted = False  # and the log says so
        # There is a change up to this revision that was not told when everything was read again last.
        self._suspected: int | None = None

    async def run(self, after: int | None) -> None:
        """Follow until cancelled. Raises StoreRefused."""
        while True:
            try:
                if after is not None:
                    await self._begin(after)
                    after = None
                await self._follow()
            except (StoreAway, StreamFailed) as error:
                self._interrupted(error)
            except Canceled as error:
                self._canceled(error)
            self._assembly.interrupt()
            await asyncio.sleep(self._backoff.wait_s())

    async def _begin(self, after: int) -> None:
        """Learn what there was at a revision that the reader of this watch knows."""
        if after < 1:
            await self._assembly.begin(0, ())
            self._known = True
            return
        try:
            listing = await self._reader.revisions(self._span, after)
        except Answered as error:
            if error.cause not in (Cause.COMPACTED, Cause.FUTURE):
                raise
            return  # it cannot be told: everything is read
        await self._assembly.begin(after, listing.found)
        self._note_origin(listing)
        self._known = True

    async def _follow(self) -> None:
        """Until the stream ends. Raises StreamFailed, Canceled, StoreAway, StoreRefused."""
        if self._known and not await self._can_go_on():
            self._known = False
        if not self._known:
            await self._read_all()
        async with WatchStream(self._session, self._keys, self._span) as stream:
            await stream.open(self._assembly.revision + 1)
            self._goes_on()
            relist_at_s = self._next_relist_s()
            while True:
                reply = await stream.receive(relist_at_s)
                if reply is None:
                    await self._compare()
                    relist_at_s = self._next_relist_s()
                    stream.pause_is_over()
                    continue
                self._backoff.forgive()
                self._denials = 0
                self._take(reply)

    def _take(self, reply: Any) -> None:
        if reply.events or reply.fragment:
            change = self._assembly.add(reply)
            if change is not None:
                self._tell(change)
        elif reply.watch_id == WATCH_ID:
            # Sent by etcd of its own in the order of the events. An answer to our question (no watch id) may
            # overtake events in versions before 3.4.25 and 3.5.8:
            # https://github.com/etcd-io/etcd/issues/15220
            self._assembly.advance(reply.header.revision)

    async def _can_go_on(self) -> bool:
        """Whether events after our revision are still there, in the same history."""
        revision = self._assembly.revision
        if revision < 1:
            return True
        try:
            listing = await self._reader.probe(self._span, revision)
        except Answered as error:
            if error.cause is Cause.COMPACTED:
                log.info("%s: revision %s is compacted", self._keys.shown(self._span), revision)
            elif error.cause is Cause.FUTURE:
                log.warning(
                    "%s: revision %s is gone, etcd was restored", self._keys.shown(self._span), revision
                )
            else:
                raise
            return False
        return self._note_origin(listing)

    def _note_origin(self, listing: Listing) -> bool:
        """Whether it is the history that we know. A restored cluster has another id, or begins its terms
        anew.
        """
        known, self._origin = self._origin, (listing.cluster, listing.term)
        if known is None or (known[0] == listing.cluster and known[1] <= listing.term):
            return True
        log.warning("%s: another cluster, or restored from a backup", self._keys.shown(self._span))
        return False

    async def _read_all(self) -> None:
        listing = await self._reader.read(self._span)
        self._origin = (listing.cluster, listing.term)
        self._known = True
        self._tell(await self._assembly.reset(listing.revision, listing.found))

    async def _compare(self) -> None:
        """Read everything again, and heal what the watch did not tell."""
        suspected, self._suspected = self._suspected, None
        try:
            now = await self._reader.read(self._span)
            if await self._assembly.equals(now.found):
                self._assembly.advance(now.revision)
                return
            if suspected is None:
                self._suspected = now.revision  # perhaps it is only not told yet: look again in a while
                return
            told = self._assembly.revision
            if told >= suspected:
                then = await self._reader.revisions(self._span, told)
                if await self._assembly.equals(then.found):
                    return
            log.error("%s: etcd did not tell us all changes; read again", self._keys.shown(self._span))
        except StoreAway:
            return  # the watch will notice too
        except Answered as error:
            if error.cause not in (Cause.COMPACTED, Cause.FUTURE):
                raise
        self._known = False
        raise StreamFailed("what it told is not what there is")

    def _canceled(self, error: Canceled) -> None:
        """Raises StoreRefused where another try would not help."""
        if error.compacted:
            log.info("watch of %s was compacted: %s", self._keys.shown(self._span), error)
            self._known = False
        elif not error.denied:
            self._interrupted(error)
        else:
            # Old versions say so of an outdated token too. If it is true, the next read is refused.
            self._session.forget_token()
            self._denials += 1
            if self._denials > _MOST_DENIALS:
                raise self._session.denied(f"watch {self._keys.shown(self._span)}")

    def _interrupted(self, error: Exception) -> None:
        if not self._is_interrupted:  # once, however often it is tried again
            log.warning("watch of %s interrupted: %s", self._keys.shown(self._span), error)
        self._is_interrupted = True

    def _goes_on(self) -> None:
        if self._is_interrupted:
            log.info("watch of %s goes on", self._keys.shown(self._span))
        self._is_interrupted = False

    def _next_relist_s(self) -> float:
        timing = self._session.timing
        if self._suspected is not None:
            return asyncio.get_running_loop().time() + timing.dead_s
        return asyncio.get_running_loop().time() + self._session.random.uniform(0.8, 1.2) * timing.relist_s
