"""Which file is under a name, and the log that SQLite keeps beside a database."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    device: int
    inode: int

    @classmethod
    def of(cls, path: str | Path) -> Identity | None:
        """Return None where there is no file, or none that can be reached."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino)


class LocalLog:
    """The log of a database that is open, and the index of the log."""

    def __init__(self, database: Path) -> None:
        real = os.path.realpath(database)  # beside the file itself, not beside a link to it
        self._folder = os.path.dirname(real)
        self._files = {name: Identity.of(name) for name in (f"{real}-wal", f"{real}-shm")}

    def remove(self) -> None:
        """Remove the log of a database that has lost its name, before it is closed.

        The log keeps its name, and SQLite would take it for the log of whatever file has the database's name
        next, and mix the two. One process at a time: another could have begun a new log for the new file. As
        long as the old log is open here, its inode cannot be that of a new one.

        Raises OSError, BlockingIOError among them: then the new file must not be opened yet.
        """
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # the folder went too
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name, identity in self._files.items():
                if identity is not None and Identity.of(name) == identity:
                    os.unlink(name)
        finally:
            os.close(folder)
