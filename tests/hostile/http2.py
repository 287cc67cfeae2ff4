"""Frames of HTTP/2 (RFC 9113) and messages of gRPC, written without any check, so that what is wrong can be
sent.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW: Final = 65535
MAX_WINDOW: Final = 0x7FFF_FFFF
FRAME_BYTES: Final = 1 << 14  # every peer takes frames of this size
_HEADER: Final = struct.Struct(">BHBBI")  # length in 1 + 2 bytes, type, flags, stream
HEADER_BYTES: Final = _HEADER.size

END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8


class Type(enum.IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9
    UNKNOWN = 0x42


class Reason(enum.IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(enum.IntEnum):
    HEADER_TABLE_SIZE = 1
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    body: bytes


def header(length: int, type_: int, flags: int, stream: int) -> bytes:
    return _HEADER.pack(length >> 16, length & 0xFFFF, type_, flags, stream)


def read_header(data: bytes) -> tuple[int, Frame]:
    """Return the length of a frame's body, and the frame without it."""
    high, low, type_, flags, stream = _HEADER.unpack(data)
    return high << 16 | low, Frame(type_, flags, stream & MAX_WINDOW, b"")


def frame(type_: int, stream: int, body: bytes = b"", flags: int = 0) -> bytes:
    return header(len(body), type_, flags, stream) + body


def headers(stream: int, block: bytes, *, end: bool = False) -> bytes:
    return frame(Type.HEADERS, stream, block, END_HEADERS | (END_STREAM if end else 0))


def data(stream: int, body: bytes, *, end: bool = True) -> bytes:
    return frame(Type.DATA, stream, body, END_STREAM if end else 0)


def reset(stream: int, reason: int = Reason.CANCEL) -> bytes:
    return frame(Type.RST_STREAM, stream, struct.pack(">I", reason))


def window(stream: int, increment: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, stream, struct.pack(">I", increment))


def settings(values: Mapping[int, int]) -> bytes:
    return frame(Type.SETTINGS, 0, b"".join([struct.pack(">HI", *pair) for pair in values.items()]))


def read_settings(body: bytes) -> dict[int, int]:
    return dict(struct.iter_unpack(">HI", body))


def ping() -> bytes:
    return frame(Type.PING, 0, b"12345678")


def message(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message of gRPC with its prefix, which may announce another length."""
    return struct.pack(">BI", flag, len(body) if length is None else length) + body
