"""When certificates end, read from their files whenever these change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)


class Expiry(NamedTuple):
    """`at_s` is since the epoch, of the first certificate of the chain that ends."""

    use: str
    at_s: float


class CertificateExpiry:
    """`files` is {use: PEM file}. A file that cannot be read leaves what was known of it, as the listeners go
    on with the certificate they have; it is logged once for each change. `sample` reads files: it may block.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._stamps: dict[str, tuple[int, int, int] | None] = {}  # {use: inode, size and mtime in ns}
        self._known: dict[str, float] = {}  # {use: when it ends}

    def sample(self) -> Sequence[Expiry]:
        for use, file in self._files.items():
            stamp = _stamp(file)
            if use in self._stamps and stamp == self._stamps[use]:
                continue
            self._stamps[use] = stamp
            try:
                self._known[use] = expiry_s(file.read_bytes())
            except (OSError, ValueError) as error:
                _log.warning("cannot tell when the certificate %s for %s ends: %s", file, use, error)
        return [Expiry(use, at_s) for use, at_s in self._known.items()]


def expiry_s(pem: bytes) -> float:
    """Return when the first certificate of a PEM chain ends, in seconds since the epoch.

    Raises:
        ValueError: it is no chain of certificates.
    """
    return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(pem))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
