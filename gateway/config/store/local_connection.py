"""Opening the file of a local store, and what SQLite's failures mean to an operator."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from gateway.config.store.store import StoreAway, StoreError, StoreRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_S: Final = 2.0
SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x58674174  # "XgAt"
_JOURNAL_BYTES: Final = 16 << 20  # a log that grew beyond it is cut once it was taken over
_SCHEMA: Final = (
    "CREATE TABLE store (id TEXT NOT NULL, revision INTEGER NOT NULL, compacted INTEGER NOT NULL)",
    # Keys are bytes: SQLite orders BLOBs by memcmp, as etcd does.
    "CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,"
    " lease INTEGER NOT NULL)",
    "CREATE INDEX entries_by_revision ON entries (revision)",
    "CREATE INDEX entries_by_lease ON entries (lease) WHERE lease != 0",
    "CREATE TABLE deletions (key BLOB PRIMARY KEY, revision INTEGER NOT NULL)",
    "CREATE INDEX deletions_by_revision ON deletions (revision)",
    "CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_ns INTEGER NOT NULL, boot TEXT NOT NULL,"
    " expires_ns INTEGER NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
# Of a file that was copied half, or is no database at all.
DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What will not pass by itself when a store is opened for the first time.
_LASTING: Final = DAMAGED | {sqlite3.SQLITE_CANTOPEN}
_FORBIDDEN: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
_FOREIGN: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open a store's file for this thread; with `create`, make it where there is none, readable by its owner
    only.

    Raises:
        StoreRefused: it is no store of ours, or may not be opened; with `create` also: it is damaged.
        StoreAway: somebody has locked it; without `create` also: it is not there, or not whole yet.
    """
    _check_path(path, create=create)
    if create:
        _touch(path)
    try:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
        )
    except sqlite3.Error as error:
        raise StoreAway(f"{path} cannot be opened: {error}") from error
    try:
        _prepare(connection, path, create=create)
    except sqlite3.Error as error:
        connection.close()
        told = translate(path, error)
        if create and primary_code(error) in _LASTING:
            raise StoreRefused(str(told)) from error
        raise told from error  # it may be half copied: a restore is under way
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """End what was begun, whatever happens: without a COMMIT nothing stays."""
    connection.execute(begin)
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its details, 0 where there is none."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def translate(path: Path, error: sqlite3.Error) -> StoreError:
    """Return what to tell about a failure of SQLite."""
    code = primary_code(error)
    if code in _BUSY:
        return StoreAway(f"{path} is locked: another process has been writing to it for {BUSY_S:g} s")
    if code in DAMAGED:
        return StoreAway(
            f"{path} is damaged or no database ({error}): restore a backup, or name another file"
        )
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED:
        return StoreAway(f"{path} was deleted or moved")
    if code in _FORBIDDEN:
        return StoreRefused(
            f"{path} may not be written ({error}): check the rights of the file and its folder"
        )
    if code in _FOREIGN:
        return StoreRefused(f"{path} is no store that this version understands: {error}")
    if code == sqlite3.SQLITE_FULL:
        return StoreAway(f"no space is left for {path}: nothing was written")
    return StoreAway(f"{path} cannot be read or written: {error}")


def _check_path(path: Path, *, create: bool) -> None:
    kind = StoreRefused if create else StoreAway
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(path.parent):
            raise kind(f"{path.parent} is no folder: create it, or name another file than {path}") from None
        if not create:
            raise StoreAway(f"{path} is not there: it was deleted or moved") from None
    except OSError as error:
        raise StoreRefused(f"{path} cannot be opened: {error.strerror}") from error
    else:
        if not stat.S_ISREG(mode):
            raise StoreRefused(f"{path} is no file: name the file to keep the store in, such as {path}/store")
        if not os.access(path, os.R_OK | os.W_OK):
            raise StoreRefused(f"{path} may not be read and written by this user (uid {os.geteuid()})")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreRefused(
            f"the folder {path.parent} may not be written by this user (uid {os.geteuid()}):"
            f" SQLite keeps its log beside {path.name}"
        )


def _touch(path: Path) -> None:
    """Make an empty file where there is none. Never open one that is there: to close it again would drop the
    locks that this process has on it through SQLite.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreRefused(f"{path} cannot be created: {error.strerror}") from error


def _prepare(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    with transaction(connection, "BEGIN"):  # somebody else may be filling it
        empty = _check_header(connection, path)
    if empty and not create:
        raise StoreAway(f"{path} is empty: restore a backup, or restart to begin with an empty store")
    _write_ahead(connection, path)
    connection.execute("PRAGMA synchronous = FULL")  # a commit that was answered survives a power cut
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    if not empty:
        return
    with transaction(connection, "BEGIN IMMEDIATE"):
        if _check_header(connection, path):  # nobody else was faster
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO store VALUES (?, 0, 0)", (secrets.token_hex(16),))
        connection.execute("COMMIT")


def _check_header(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse a file that is not ours; return whether it is empty."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == version == tables == 0:
        return True
    if application != _APPLICATION_ID:
        raise StoreRefused(f"{path} is a database of another application: name another file")
    if version != SCHEMA_VERSION:
        raise StoreRefused(
            f"{path} has the schema version {version}, this gateway knows {SCHEMA_VERSION}:"
            " it was written by a newer one, which is needed to open it"
        )
    return False


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to a write-ahead log, in which readers and the writer do not wait for one another."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    until = time.monotonic() + BUSY_S
    while True:
        try:  # SQLite does not wait by itself for this lock
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if primary_code(error) not in _BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreRefused(f"the file system of {path} lacks what SQLite needs for its log: use a local disk")
