"""HTTP/2 by hand: what a server says before any request, and to a peer that is silent."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
MAX_CONCURRENT_STREAMS: Final = 3
_ACK: Final = 1
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = struct.Struct(">BHBBI")  # length in 1 + 2 bytes, type, flags, stream


class Frame(NamedTuple):
    type: int
    flags: int
    body: bytes

    def settings(self) -> dict[int, int]:
        return dict(struct.iter_unpack(">HI", self.body))


class RawConnection:
    """A connection without TLS. Pings are answered only with `answers`."""

    def __init__(self, address: str, *, answers: bool, timeout_s: float) -> None:
        self._answers = answers
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(timeout_s)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(_PREFACE + _frame(SETTINGS, 0, b""))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def frames(self) -> Iterator[Frame]:
        """Yield what comes until the server closes the connection."""
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            high, low, type_, flags, _ = _HEAD.unpack(head)
            frame = Frame(type_, flags, self._file.read(high << 16 | low))
            if frame.type == PING and not frame.flags & _ACK and self._answers:
                self._socket.sendall(_frame(PING, _ACK, frame.body))
            yield frame


def _frame(type_: int, flags: int, body: bytes) -> bytes:
    return _HEAD.pack(0, len(body), type_, flags, 0) + body
