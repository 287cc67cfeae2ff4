"""The tables of a local store: what is read and written within one transaction."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.store.store import Delete, Entry, Put

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from gateway.config.store.store import Span, Write

_LARGEST = 2**63 - 1
_FIELDS = "key, value, revision, lease"


@dataclass(frozen=True, slots=True)
class Head:
    """Which store it is, its revision, and up to which revision deletions have been forgotten."""

    id: str
    revision: int
    compacted: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    ttl_ns: int
    boot: str
    expires_ns: int


class LocalTables:
    """Statements on one connection. Whoever calls has begun a transaction where it takes more than one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def head(self) -> Head:
        row = self._connection.execute("SELECT id, revision, compacted FROM store").fetchone()
        return Head(*row)

    def entry(self, key: str) -> Entry | None:
        row = self._connection.execute(
            f"SELECT {_FIELDS} FROM entries WHERE key = ?", (key.encode(),)
        ).fetchone()
        return None if row is None else _entry(*row)

    def entries(self, span: Span, last: int | None = None) -> tuple[Entry, ...]:
        """Return what a span holds, ascending; with `last`, the highest keys only."""
        order, limit = ("ASC", _LARGEST) if last is None else ("DESC", min(last, _LARGEST))
        rows = self._connection.execute(
            f"SELECT {_FIELDS} FROM entries WHERE key >= ? AND key < ? ORDER BY key {order} LIMIT ?",
            (span.start.encode(), span.end.encode(), limit),
        ).fetchall()
        if last is not None:
            rows.reverse()
        return tuple(_entry(*row) for row in rows)

    def entries_after(self, span: Span, revision: int) -> tuple[Entry, ...]:
        # Without the hint the whole span would be read to find the few that are new.
        rows = self._connection.execute(
            f"SELECT {_FIELDS} FROM entries INDEXED BY entries_by_revision"
            " WHERE revision > ? AND key >= ? AND key < ? ORDER BY key",
            (revision, span.start.encode(), span.end.encode()),
        )
        return tuple(_entry(*row) for row in rows)

    def deletions_after(self, span: Span, revision: int) -> tuple[str, ...]:
        rows = self._connection.execute(
            "SELECT key FROM deletions INDEXED BY deletions_by_revision"
            " WHERE revision > ? AND key >= ? AND key < ? ORDER BY key",
            (revision, span.start.encode(), span.end.encode()),
        )
        return tuple(key.decode() for (key,) in rows)

    def write(self, writes: Sequence[Write]) -> int:
        """Apply writes, and return the revision after them: the next one if there was anything to do."""
        revision = self.head().revision + 1
        done = False
        for write in writes:
            match write:
                case Put(key, value, lease):
                    self._put(key.encode(), value, revision, lease)
                    done = True
                case Delete(key):
                    done = self._delete(key.encode(), revision) or done
        return self._advance(revision) if done else revision - 1

    def compact(self, kept_deletions: int) -> None:
        """Forget the older half of the deletions once there are more than `kept_deletions`."""
        (count,) = self._connection.execute("SELECT count(*) FROM deletions").fetchone()
        if count <= kept_deletions:
            return
        (forgotten,) = self._connection.execute(
            "SELECT coalesce(max(revision), 0) FROM"
            " (SELECT revision FROM deletions ORDER BY revision LIMIT ?)",
            (count - kept_deletions // 2,),
        ).fetchone()
        self._connection.execute("DELETE FROM deletions WHERE revision <= ?", (forgotten,))
        self._connection.execute("UPDATE store SET compacted = max(compacted, ?)", (forgotten,))

    def add_lease(self, row: LeaseRow) -> int:
        """Return its id, which none had before it: in a restored file an old number must not be taken for
        another's.
        """
        id = secrets.randbits(62) + 1
        self._connection.execute(
            "INSERT INTO leases (id, ttl_ns, boot, expires_ns) VALUES (?, ?, ?, ?)",
            (id, row.ttl_ns, row.boot, row.expires_ns),
        )
        return id

    def lease(self, id: int) -> LeaseRow | None:
        if not 0 < id <= _LARGEST:
            return None
        row = self._connection.execute(
            "SELECT ttl_ns, boot, expires_ns FROM leases WHERE id = ?", (id,)
        ).fetchone()
        return None if row is None else LeaseRow(*row)

    def set_expiry(self, id: int, expires_ns: int) -> None:
        self._connection.execute("UPDATE leases SET expires_ns = ? WHERE id = ?", (expires_ns, id))

    def next_expiry_ns(self, boot: str) -> int | None:
        """Return when the first lease expires, 0 if it was granted before this boot; None without leases."""
        row = self._connection.execute(
            "SELECT min(CASE boot WHEN ? THEN expires_ns ELSE 0 END) FROM leases", (boot,)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def expired(self, boot: str, now_ns: int) -> tuple[int, ...]:
        rows = self._connection.execute(
            "SELECT id FROM leases WHERE boot != ? OR expires_ns <= ?", (boot, now_ns)
        )
        return tuple(id for (id,) in rows)

    def end_leases(self, ids: Iterable[int]) -> int:
        """Delete leases and what was written under them, and return the revision after it."""
        deletes: list[Write] = []
        for id in ids:
            keys = self._connection.execute("SELECT key FROM entries WHERE lease = ? AND lease != 0", (id,))
            deletes += [Delete(key.decode()) for (key,) in keys]
            self._connection.execute("DELETE FROM leases WHERE id = ?", (id,))
        return self.write(deletes)

    def _put(self, key: bytes, value: bytes, revision: int, lease: int) -> None:
        self._connection.execute(
            "INSERT INTO entries (key, value, revision, lease) VALUES (?, ?, ?, ?) ON CONFLICT (key)"
            " DO UPDATE SET value = excluded.value, revision = excluded.revision, lease = excluded.lease",
            (key, value, revision, lease),
        )
        self._connection.execute("DELETE FROM deletions WHERE key = ?", (key,))

    def _delete(self, key: bytes, revision: int) -> bool:
        """Return whether there was one."""
        if self._connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount == 0:
            return False
        self._connection.execute(
            "INSERT OR REPLACE INTO deletions (key, revision) VALUES (?, ?)", (key, revision)
        )
        return True

    def _advance(self, revision: int) -> int:
        self._connection.execute("UPDATE store SET revision = ?", (revision,))
        return revision


def _entry(key: bytes, value: bytes, revision: int, lease: int) -> Entry:
    return Entry(key.decode(), value, revision, lease)
