"""The file of a local store, as one thread sees it: transactions, leases that expire, and what has become of
the file meanwhile.

A file that was deleted or replaced under its name is let go at once, and opened again when one is there. From
then on, as after a backup was restored into it, it is another *generation*: what was read before says nothing
about it, so no watch resumes across generations.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gateway.config.store.local_connection import DAMAGED, connect, primary_code, transaction, translate
from gateway.config.store.local_log import Identity, LocalLog
from gateway.config.store.local_tables import Head, LeaseRow, LocalTables
from gateway.config.store.store import (
    Change,
    CommitUnclear,
    Conflict,
    Expect,
    LeaseGone,
    Put,
    Snapshot,
    StoreAway,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gateway.config.store.local_boot import LeaseClock
    from gateway.config.store.store import Entry, Span, Write

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watch has come. `generation` is None where it resumes from a revision that it was given."""

    revision: int
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a watch is now, and what has changed on the way, if anything."""

    position: Position
    change: Change | None


class LocalFile:
    """All methods are called by one thread, and raise StoreAway and StoreRefused.

    `stamp` rises whenever a watch may have something to read: commits of this and of other processes, and a
    new generation.
    """

    def __init__(self, path: Path, clock: LeaseClock, kept_deletions: int, *, create: bool = True) -> None:
        self.stamp = 0
        self._create = create
        self._path = path
        self._clock = clock
        self._kept_deletions = kept_deletions
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._log: LocalLog | None = None
        self._generation = 0
        self._head = Head("", 0, 0)
        self._resumable_from = 0  # below it a revision may be of an earlier generation
        self._data_version: int | None = None  # SQLite's own: it changes with commits of other connections
        self._expiry_ns: int | None = None  # of the lease that expires first

    def open(self) -> None:
        """Open the file; where there is none, create it, or leave it to the first use."""
        if self._create:
            self._connect(create=True)
            return
        try:
            self._connect(create=False)
        except StoreAway as error:
            log.warning("%s; it is taken up when it is there", error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def poll(self) -> None:
        """Notice what others have done, and delete what has expired."""
        with self._translated():
            self._current()

    def read(self, span: Span, last: int | None) -> Snapshot:
        return self._reading(lambda tables: Snapshot(tables.head().revision, tables.entries(span, last)))

    def get(self, key: str) -> Entry | None:
        return self._reading(lambda tables: tables.entry(key))

    def commit(self, writes: Sequence[Write], expect: Sequence[Expect]) -> int:
        def apply(tables: LocalTables) -> int:
            wrong: dict[str, Entry | None] = {}
            for each in expect:
                found = tables.entry(each.key)
                if (0 if found is None else found.revision) != each.revision:
                    wrong[each.key] = found
            if wrong:
                raise Conflict(wrong)
            for id in {write.lease for write in writes if isinstance(write, Put) and write.lease != 0}:
                self._alive(tables, id)
            revision = tables.write(writes)
            tables.compact(self._kept_deletions)
            return revision

        return self._writing(apply)

    def advance(self, span: Span, position: Position | None) -> Progress:
        """Return what has changed in a span since a position; everything, where that cannot be told."""

        def changes(tables: LocalTables) -> Progress:
            head = tables.head()
            here = Position(head.revision, self._generation)
            if position is None or not self._resumable(position, head):
                change = Change(head.revision, tables.entries(span), resync=True)
                return Progress(here, change)
            if position.revision == head.revision:
                return Progress(here, None)
            puts = tables.entries_after(span, position.revision)
            deletes = tables.deletions_after(span, position.revision)
            return Progress(here, Change(head.revision, puts, deletes) if puts or deletes else None)

        return self._reading(changes)

    def grant(self, ttl_ns: int) -> int:
        row = LeaseRow(ttl_ns, self._clock.boot, self._clock.now_ns() + ttl_ns)
        return self._writing(lambda tables: tables.add_lease(row))

    def renew(self, lease: int) -> None:
        def prolong(tables: LocalTables) -> None:
            row = self._alive(tables, lease)
            tables.set_expiry(lease, self._clock.now_ns() + row.ttl_ns)

        self._writing(prolong)

    def revoke(self, lease: int) -> None:
        def end(tables: LocalTables) -> None:
            if tables.lease(lease) is not None:
                tables.end_leases([lease])
                tables.compact(self._kept_deletions)

        self._writing(end)

    def remaining_ns(self, lease: int) -> int:
        row = self._reading(lambda tables: self._alive(tables, lease))
        return max(row.expires_ns - self._clock.now_ns(), 0)

    def _alive(self, tables: LocalTables, id: int) -> LeaseRow:
        row = tables.lease(id)
        if row is None or row.boot != self._clock.boot or row.expires_ns <= self._clock.now_ns():
            raise LeaseGone(f"the lease {id} has expired or was revoked")
        return row

    def _resumable(self, position: Position, head: Head) -> bool:
        if position.generation is None:
            return max(head.compacted, self._resumable_from) <= position.revision <= head.revision
        return position.generation == self._generation and position.revision >= head.compacted

    def _reading(self, work: Callable[[LocalTables], T]) -> T:
        """Do work that sees one revision."""
        with self._translated():
            connection = self._current()
            with transaction(connection, "BEGIN"):
                return work(LocalTables(connection))

    def _writing(self, work: Callable[[LocalTables], T]) -> T:
        """Do work that is applied whole or, when it raises, not at all."""
        with self._translated():
            connection = self._current()
            result = self._write(connection, work)
            if Identity.of(self._path) != self._identity:
                raise CommitUnclear(f"{self._path} was deleted or replaced during a commit")
            return result

    def _write(self, connection: sqlite3.Connection, work: Callable[[LocalTables], T]) -> T:
        with transaction(connection, "BEGIN IMMEDIATE"):
            result = work(LocalTables(connection))
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if primary_code(error) == sqlite3.SQLITE_IOERR:
                    raise CommitUnclear(f"{self._path} failed while it was written: {error}") from error
                raise
        self._observe(connection)
        return result

    def _current(self) -> sqlite3.Connection:
        """Return the connection to the file that has the name now, up to date and without expired leases."""
        if self._connection is not None and Identity.of(self._path) != self._identity:
            self._let_go()
        connection = self._connection or self._connect(create=False)
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._observe(connection)
        if self._expiry_ns is not None and self._expiry_ns <= self._clock.now_ns():
            self._write(connection, self._expire)
        return connection

    def _expire(self, tables: LocalTables) -> None:
        tables.end_leases(tables.expired(self._clock.boot, self._clock.now_ns()))
        tables.compact(self._kept_deletions)

    def _observe(self, connection: sqlite3.Connection) -> None:
        """Take note of what the file holds now."""
        tables = LocalTables(connection)
        with transaction(connection, "BEGIN"):
            head = tables.head()
            self._expiry_ns = tables.next_expiry_ns(self._clock.boot)
        if head.id != self._head.id or head.revision < self._head.revision:
            self._begin_generation()  # a backup was restored into the file
        self._head = head
        self.stamp += 1

    def _begin_generation(self) -> None:
        self._generation += 1
        if self._head.id:
            self._resumable_from = max(self._resumable_from, self._head.revision + 1)

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        before = Identity.of(self._path)
        connection = connect(self._path, create=create)
        try:
            LocalTables(connection).head()  # begins the log
            self._identity = Identity.of(self._path)
            if before is not None and before != self._identity:
                raise StoreAway(f"{self._path} is being replaced")
        except BaseException:
            connection.close()
            raise
        self._log = LocalLog(self._path)
        self._connection = connection
        self._data_version = None
        self._begin_generation()
        return connection

    def _let_go(self) -> None:
        """Close a file that has lost its name; wherever it is now, it gets what its log holds."""
        if self._connection is None or self._log is None:
            return
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        try:
            self._log.remove()
        except OSError as error:
            raise StoreAway(f"{self._path} was replaced, and its old log is in the way: {error}") from error
        self.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if primary_code(error) in DAMAGED:
                self.close()  # the next call looks for one that was restored
            raise translate(self._path, error) from error
