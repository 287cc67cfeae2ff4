"""The certificate files of a listener, read again when they are replaced.

A replacement that cannot be used leaves the one before in force: a certificate is usually renewed by a
program, file by file, while nobody watches.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, NamedTuple

from gateway.frontend.listening import ListenerInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.frontend.listening import Tls

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int] | None, ...]  # inode, size and mtime in ns of each file; None: not there


class Pem(NamedTuple):
    """Contents that fit together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """`pem` is in force. May be asked from any thread.

    Raises:
        ListenerInvalid: the files cannot be used.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp = _stamp(tls)
        self.pem = _read(tls)

    def renewed(self) -> Pem | None:
        """Return what is new in the files, None where nothing is; what cannot be used is logged once."""
        stamp = _stamp(self._tls)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            self.pem = _read(self._tls)
        except ListenerInvalid as error:
            log.warning("the TLS files were replaced, the old ones stay in force: %s", error)
            return None
        log.info("the TLS files were replaced; new connections get %s", self._tls.certificate)
        return self.pem


def _files(tls: Tls) -> list[Path]:
    return [file for file in (tls.certificate, tls.key, tls.client_ca) if file is not None]


def _stamp(tls: Tls) -> Stamp:
    stamp: list[tuple[int, int, int] | None] = []
    for file in _files(tls):
        try:
            found = file.stat()
        except OSError:
            stamp.append(None)
        else:
            stamp.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamp)


def _read(tls: Tls) -> Pem:
    """The check is OpenSSL's own: whether the files are PEM, and the key is the certificate's."""
    contents = []
    for file in _files(tls):
        try:
            contents.append(file.read_bytes())
        except OSError as error:
            raise ListenerInvalid(f"TLS: {file} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # not asked for at the terminal
    except (ssl.SSLError, OSError) as error:
        raise ListenerInvalid(
            f"TLS: certificate {tls.certificate} and key {tls.key} cannot be used: {_words(error)}"
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise ListenerInvalid(f"TLS: {tls.client_ca} holds no certificates: {_words(error)}") from error
    return Pem(contents[0], contents[1], contents[2] if tls.client_ca is not None else None)


def _words(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
