"""A client of HTTP/2 that sends what it likes, and reads when it likes."""

from __future__ import annotations

import collections
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import http2
from header_block import block, read_block
from http2 import Frame, Setting, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_S: Final = 15.0  # bounds every wait of a test
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
READY: Final = "/inference.GRPCInferenceService/ServerReady"
WATCH: Final = "/grpc.health.v1.Health/Watch"
_WIDE: Final = 1 << 30
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def call_fields(path: str = INFER, **fields: str) -> dict[str, str]:
    """Return what a call begins with. '_' in a name stands for '-'; an empty value leaves a field out."""
    given = {
        "method": "POST", "scheme": "http", "path": path, "authority": "localhost",
        "te": "trailers", "content_type": "application/grpc", **fields,
    }  # fmt: skip
    pseudo = ("method", "scheme", "path", "authority")
    return {":" * (name in pseudo) + name.replace("_", "-"): value for name, value in given.items() if value}


def call_block(path: str = INFER, **fields: str) -> bytes:
    return block(call_fields(path, **fields))


@dataclass
class Answer:
    """What came for a stream: head and trailers in one, the bytes, and the reason if it was reset."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    reset: int | None = None

    @property
    def status(self) -> int | None:
        status = self.fields.get("grpc-status")
        return None if status is None else int(status)


class Goodbye(NamedTuple):
    """How the server ended a connection; `reason` is None without a GOAWAY."""

    reason: int | None
    debug: bytes


class Peer:
    """One connection, without TLS. What is read is acknowledged, unless the peer is `mute`. `window` 0: the
    server may send no bytes of answers. A small `buffer_bytes` lets it feel soon that nothing is read.
    """

    def __init__(
        self,
        address: str,
        *,
        window: int = _WIDE,
        buffer_bytes: int | None = None,
        opening: bytes | None = None,
        mute: bool = False,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.settimeout(WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((host, int(port)))
        self.answers: dict[int, Answer] = {}  # {stream: as far as it has come}
        self.ended: set[int] = set()  # streams
        self.goaway: Goodbye | None = None
        self._mute = mute
        self._received = bytearray()
        self._acknowledged = False
        self._initial_window = http2.DEFAULT_WINDOW
        # {stream: bytes}; 0 is the connection
        self._granted = collections.Counter({0: http2.DEFAULT_WINDOW})
        self._sent: collections.Counter[int] = collections.Counter()
        if opening is None:
            values = {Setting.HEADER_TABLE_SIZE: 0, Setting.INITIAL_WINDOW_SIZE: window}
            opening = http2.PREFACE + http2.settings(values) + http2.window(0, _WIDE)
        self.send(opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def abort(self) -> None:
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    # What goes out.

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def open(self, stream: int, path: str = INFER) -> None:
        self.send(http2.headers(stream, call_block(path)))

    def call(self, stream: int, body: bytes, path: str = INFER) -> None:
        """Send a whole request with one message, of any size."""
        self.open(stream, path)
        self.upload(stream, http2.message(body), end=True)

    def upload(self, stream: int, body: bytes, *, for_s: float = WAIT_S, end: bool = False) -> int:
        """Send a body as far as the windows allow it in the time; return how many bytes that were."""
        at, until_s = 0, time.monotonic() + for_s
        while at < len(body) and stream not in self.ended and (left_s := until_s - time.monotonic()) > 0:
            piece = body[at : at + self._room(stream)]
            readable, writable, _ = select.select([self.socket], [self.socket] if piece else [], [], left_s)
            if readable:
                self.read()
            elif writable:
                at += len(piece)
                self.send(http2.data(stream, piece, end=end and at == len(body)))
                self._sent.update({0: len(piece), stream: len(piece)})
        return at

    def _room(self, stream: int) -> int:
        """Return how much may be sent to a stream at once."""
        connection = self._granted[0] - self._sent[0]
        own = self._initial_window + self._granted[stream] - self._sent[stream]
        return max(min(connection, own, http2.FRAME_BYTES), 0)

    def flood(self, frames: bytes, *, for_s: float, reads: bool = True) -> int:
        """Send the same again and again until the connection is ended or the time is over; return how many
        bytes were taken.
        """
        sent, at, until_s = 0, 0, time.monotonic() + for_s
        view = memoryview(frames)
        while self.goaway is None and (left_s := until_s - time.monotonic()) > 0:
            both = [self.socket]
            readable, writable, _ = select.select(both if reads else [], both, [], left_s)
            try:
                if readable:
                    self.read()
                if writable:
                    size = self.socket.send(view[at:], socket.MSG_DONTWAIT)
                    sent, at = sent + size, (at + size) % len(frames)
            except BlockingIOError:
                pass
            except (EOFError, ConnectionError):
                break
        return sent

    # What comes back.

    def read(self) -> None:
        """Take in what has come, or the next that comes.

        Raises:
            EOFError, ConnectionError: the connection has ended.
        """
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise EOFError
        self._received += piece
        for frame in self._frames():
            self._note(frame)

    def _frames(self) -> Iterator[Frame]:
        at = 0
        while len(self._received) - at >= http2.HEADER_BYTES:
            begins = at + http2.HEADER_BYTES
            length, head = http2.read_header(self._received[at:begins])
            if len(self._received) < begins + length:
                break
            at = begins + length
            yield head._replace(body=bytes(self._received[begins:at]))
        del self._received[:at]

    def _note(self, frame: Frame) -> None:
        match frame.type:
            case Type.GOAWAY:
                self.goaway = Goodbye(int.from_bytes(frame.body[4:8], "big"), frame.body[8:])
            case Type.WINDOW_UPDATE:
                self._granted[frame.stream] += int.from_bytes(frame.body, "big")
            case Type.SETTINGS if frame.flags & http2.ACK:
                self._acknowledged = True
            case Type.SETTINGS:
                given = http2.read_settings(frame.body)
                self._initial_window = given.get(Setting.INITIAL_WINDOW_SIZE, self._initial_window)
                self._acknowledge(Type.SETTINGS, b"")
            case Type.PING if not frame.flags & http2.ACK:
                self._acknowledge(Type.PING, frame.body)
            case Type.HEADERS | Type.DATA | Type.RST_STREAM:
                self._note_answer(frame)

    def _acknowledge(self, type_: int, body: bytes) -> None:
        try:
            if not self._mute:
                self.send(http2.frame(type_, 0, body, http2.ACK))
        except ConnectionError:
            pass  # what was sent before is still read

    def _note_answer(self, frame: Frame) -> None:
        answer = self.answers.setdefault(frame.stream, Answer())
        if frame.type == Type.HEADERS:
            answer.fields |= read_block(frame.body)
        elif frame.type == Type.DATA:
            answer.body += frame.body
        elif frame.stream not in self.ended:
            answer.reset = int.from_bytes(frame.body, "big")
        if frame.type == Type.RST_STREAM or frame.flags & http2.END_STREAM:
            self.ended.add(frame.stream)

    def read_until(self, condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        until_s = time.monotonic() + wait_s
        while not condition():
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"it did not come: {self.goaway}, {len(self.ended)} streams ended"
            if select.select([self.socket], [], [], left_s)[0]:
                self.read()

    def wait_for_settings(self) -> None:
        """Return when the server has taken in all that was sent before."""
        self.read_until(lambda: self._acknowledged)

    def answer(self, stream: int, wait_s: float = WAIT_S) -> Answer:
        """Return what a stream is answered with, once that has ended."""
        self.read_until(lambda: stream in self.ended, wait_s)
        return self.answers[stream]

    def goodbye(self, wait_s: float = WAIT_S) -> Goodbye:
        """Return what the server has ended the connection with, once it has."""
        try:
            self.read_until(lambda: False, wait_s)
        except (EOFError, ConnectionError):
            pass
        return self.goaway or Goodbye(None, b"")
