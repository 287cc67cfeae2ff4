"""The last good state on disk: every document as it was last in force, so that a gateway starts without its
store, and a document that was broken while no gateway ran does no harm.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.config.store.store import Span

_VERSION = 1
_BUSY_S = 5.0


class LastGoodUnusable(Exception):
    """The file cannot be read or written; the message names it."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"the last good state in {path} cannot be used: {reason}")


@dataclass(frozen=True, slots=True)
class Saved:
    """A document in force, by its key in the store. `value` is JSON, None where it was deleted."""

    key: str
    revision: int
    value: bytes | None


class LastGood:
    """One SQLite file for one store. Blocks: call it in a thread. Several processes may share it; of two
    states of a document the one of the higher revision stays.
    """

    def __init__(self, path: Path, store: str) -> None:
        self._path = path
        self._store = store
        self._lock = threading.Lock()

    def load(self) -> list[Saved]:
        """Return what was saved of this store, nothing where the file is of another one.

        Raises:
            LastGoodUnusable
        """
        try:
            with self._lock, closing(self._connect()) as connection:
                rows = connection.execute("SELECT key, revision, value FROM documents").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise LastGoodUnusable(self._path, error) from error
        return [Saved(*row) for row in rows]

    def knows_documents(self) -> bool:
        """Return whether there is something to serve; false too where the file cannot be used."""
        try:
            return bool(self.load())
        except LastGoodUnusable:
            return False

    def save(self, documents: Iterable[Saved], *, only: Span | None = None) -> None:
        """Keep these documents; in `only`, no others.

        Raises:
            LastGoodUnusable
        """
        documents = list(documents)
        puts = [(each.key, each.revision, each.value) for each in documents if each.value is not None]
        deletes = [(each.key, each.revision) for each in documents if each.value is None]
        try:
            with self._lock, closing(self._connect()) as connection, connection:
                if only is not None:
                    connection.execute(
                        "DELETE FROM documents WHERE key >= ? AND key < ?", (only.start, only.end)
                    )
                connection.executemany(
                    "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                    " revision = excluded.revision, value = excluded.value"
                    " WHERE excluded.revision >= documents.revision",
                    puts,
                )
                connection.executemany("DELETE FROM documents WHERE key = ? AND revision <= ?", deletes)
        except (sqlite3.Error, OSError) as error:
            raise LastGoodUnusable(self._path, error) from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._open_for_store(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_for_store(self, connection: sqlite3.Connection) -> None:
        """Make the tables, empty where they were another store's: its revisions mean nothing here."""
        connection.execute(
            "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, revision INTEGER, value BLOB)"
        )
        found = dict(connection.execute("SELECT name, value FROM about").fetchall())
        if (found.get("store"), found.get("version")) != (self._store, str(_VERSION)):
            connection.execute("DELETE FROM documents")
            connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [("store", self._store), ("version", str(_VERSION))],
            )
