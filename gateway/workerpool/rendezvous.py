"""Where gateways find the worker of a slot: its socket, and a lock with a note of who listens there.

The lock is the kernel's and ends with its holder. Whoever holds it may look for the worker and start it, so
of any number of gateways exactly one does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.process import Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_POLL_S = 0.01  # a lock is held for as long as it takes to start a process
_MAX_NOTE_BYTES = 64


class FolderUnsafe(Exception):
    """Others could put sockets of their own there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is not this user's alone; give a folder that is, or none")


def private_folder(folder: Path) -> Path:
    """Return the folder, made where it is not there.

    Raises:
        OSError: it cannot be made, or is none.
        FolderUnsafe
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise FolderUnsafe(folder)
    return folder


class Rendezvous:
    """`key` says what kind of worker: those who ask for another kind never meet it."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.sock"
        self._lock_path = folder / f"{key}.lock"
        self._lock = -1

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock. Raises OSError when the folder is gone."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(descriptor):  # noqa: ASYNC110  # the holder is another process
                await asyncio.sleep(_POLL_S)
            self._lock = descriptor
            yield
        finally:
            self._lock = -1
            os.close(descriptor)

    def process(self) -> Process | None:
        """Return the worker that was noted here last, None when it has ended. Only while the lock is held."""
        return Process.find(os.pread(self._lock, _MAX_NOTE_BYTES, 0).decode("ascii", "replace"))

    def note(self, process: Process) -> None:
        """Let others find this worker. Only while the lock is held."""
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, process.note.encode(), 0)


def workers_of(folder: Path) -> list[Process]:
    """Return the workers in a folder that run, whoever started them."""
    found = [Process.find(path.read_text("ascii", "replace")) for path in folder.glob("*.lock")]
    return [process for process in found if process is not None]


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
