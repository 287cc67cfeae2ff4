"""Where the admin services of this user's gateways listen, and how a path among them is claimed."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.workerpool.rendezvous import private_folder

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX: Final = ".admin.sock"
_MAX_PATH_BYTES: Final = 107  # of sun_path in Linux, less the zero behind it


def default_folder() -> Path:
    """Return where sockets are put and looked for, whether it is there or not."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or f"/tmp/crossgate-{os.geteuid()}") / "crossgate"


def default_path(gateway: str) -> Path:
    return default_folder() / f"{gateway}{SUFFIX}"


def sockets_here(folder: Path | None = None) -> list[Path]:
    """Return the admin sockets of this user that somebody listens on, by name."""
    folder = default_folder() if folder is None else folder
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if _is_ours(path) and _is_live(path)]


def prepare_folder(path: Path) -> None:
    """Make the folder of a socket. It must be this user's alone: who can write there could put a socket of
    their own in its place.

    Raises:
        OSError, FolderUnsafe
    """
    folder = path.parent
    if folder != default_folder():
        private_folder(folder)
        return
    if "XDG_RUNTIME_DIR" not in os.environ:
        private_folder(folder.parent)
    private_folder(folder).chmod(0o700)


def claim(path: Path, bind: Callable[[Path], None], *, replace: bool = False) -> int:
    """Put the socket that `bind` makes at `path`, with mode 0600, and return its inode. A socket that nobody
    listens on goes; a live one goes only with `replace`: who follows another process takes its place at once.

    Raises:
        OSError: another process listens there, something else is there, or the path is too long.
    """
    draft = path.with_name(f".{os.getpid()}")
    if max(len(os.fsencode(path)), len(os.fsencode(draft))) > _MAX_PATH_BYTES:
        raise OSError(f"cannot listen on {path}: the path of a socket has at most {_MAX_PATH_BYTES} bytes")
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two that find a dead socket, one comes second
        _check(path, replace=replace)
        bind(draft)
        os.chmod(draft, 0o600)
        inode = os.stat(draft).st_ino
        os.rename(draft, path)
    finally:
        os.close(descriptor)
    return inode


def release(path: Path, inode: int) -> None:
    """Remove the socket unless another process has put its own there."""
    try:
        if os.lstat(path).st_ino == inode:
            path.unlink()
    except OSError:
        pass


def _check(path: Path, *, replace: bool) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"cannot listen on {path}: it is there and is no socket")
    if not replace and _is_live(path):
        raise OSError(f"cannot listen on {path}: another gateway listens there; give this one another name")


def _is_ours(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()


def _is_live(path: Path) -> bool:
    """Whether somebody listens; a queue of connections that is full counts as somebody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
