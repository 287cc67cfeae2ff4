"""From a version's source to files on this machine, verified against the digest that the document gives."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODEL_FILES = ("model.onnx", "model.xml")
_SUFFIXES = (".onnx", ".xml")
_BLOCK_BYTES = 1 << 20


class FetchFailed(Exception):
    """The version cannot be had. `retryable`: it may be there later."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Fetched:
    """`path` is the model's file; for a folder without one, the folder. `fingerprint` changes with the
    content, as far as that is known: it is the digest where one was given, else from sizes and times.
    """

    path: str
    fingerprint: str
    size_bytes: int = 0  # of all files


def fetch(source: str, digest: str | None = None) -> Fetched:
    """Return the files of a source: `file:///srv/digits/1`, a folder with a model.onnx or model.xml, or
    `file:///srv/digits-1.onnx`, the file itself. Reads all of it where a digest is given; call it in a
    thread.

    A digest is `sha256:` and that of the file; of a folder, that of the lines `<sha256 of a file>  <its path
    in the folder>`, sorted by path, as `sha256sum` prints them.

    Raises:
        FetchFailed: it is not there, is not what the digest says, or cannot be fetched by this release.
    """
    try:
        return _fetched(source, digest)
    except OSError as error:
        raise FetchFailed(f"{error.filename or source}: {error.strerror or error}", retryable=True) from error
    except ValueError as error:  # no text that could name a file
        raise FetchFailed(f"{source!a}: {error}", retryable=False) from error


def _fetched(source: str, digest: str | None) -> Fetched:
    """Raises FetchFailed, OSError and ValueError."""
    url = urlsplit(source)
    if url.scheme != "file":
        raise FetchFailed(
            f"sources of kind {url.scheme or 'none'}:// cannot be fetched by this release; file:// can",
            retryable=False,
        )
    if url.netloc not in ("", "localhost"):
        raise FetchFailed(f"file:// with the host {url.netloc!r}: expected file:///path", retryable=False)
    path = Path(unquote(url.path))
    if not path.is_absolute():
        raise FetchFailed(f"{source}: expected file:///path", retryable=False)
    files = _files(path)
    found = _digest(path, files) if digest is not None else ""
    if digest is not None and found != digest:
        # it may still be being copied
        raise FetchFailed(f"{path} has the digest {found}, not {digest}", retryable=True)
    size_bytes = sum(file.stat().st_size for file in files)
    return Fetched(_model_in(path, files), digest or _fingerprint(path, files), size_bytes)


def _files(path: Path) -> list[Path]:
    """Return the files of a source in the order of their names. Raises OSError and FetchFailed."""
    if not path.is_dir():
        path.stat()
        if not path.is_file():
            raise FetchFailed(f"{path} is neither a file nor a folder", retryable=False)
        return [path]
    files = [each for each in path.rglob("*") if each.is_file()]
    return sorted(files, key=lambda file: os.fsencode(file.relative_to(path)))


def _model_in(path: Path, files: list[Path]) -> str:
    """Return the model's file: the source itself, a usual name, the only one of its kind, else the folder."""
    if files == [path]:
        return str(path)
    for name in MODEL_FILES:
        if path / name in files:
            return str(path / name)
    candidates = [file for file in files if file.parent == path and file.suffix in _SUFFIXES]
    return str(candidates[0]) if len(candidates) == 1 else str(path)


def _fingerprint(path: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(_name_in(path, file) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _digest(path: Path, files: list[Path]) -> str:
    if files == [path]:
        return f"sha256:{_sha256(path)}"
    lines = [f"{_sha256(file)}  ".encode() + _name_in(path, file) + b"\n" for file in files]
    return f"sha256:{hashlib.sha256(b''.join(lines)).hexdigest()}"


def _name_in(path: Path, file: Path) -> bytes:
    """Names are bytes, of whatever encoding."""
    return os.fsencode(file.relative_to(path))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
