"""One HTTP/1.1 connection as a callback protocol: no task, one timer.

Guarantees: requests are answered one after the other, in order. Memory is bounded: while an answer is being
made or the peer does not read, nothing more is read from it. Time is bounded: a head must be complete, and
an answer taken, within the idle timeout. A request that cannot be understood gets one answer and the
connection ends.

    READING -> ANSWERING -> READING      there may be a next request
               ANSWERING -> LINGERING    the last answer is out; input is discarded until the peer has read it
"""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from gateway.http.request import BadRequest, parse_head
from gateway.http.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.http.request import Request

_LINGER_S = 1.0
_END_OF_HEAD = b"\r\n\r\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use. `idle_timeout_s` also limits how long a request head and taking an
    answer may last."""

    head_bytes: int = 8192
    fields: int = 64
    connections: int = 64
    idle_timeout_s: float = 60.0


class _State(enum.Enum):
    READING = enum.auto()
    ANSWERING = enum.auto()
    LINGERING = enum.auto()


class Connection(asyncio.Protocol):
    """`answer` makes responses; `lost` is called once, when the connection is gone. A `refused` one is
    told 503 at once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Request], Response],
        limits: Limits,
        lost: Callable[[Connection], None],
        *,
        refused: bool = False,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._limits = limits
        self._lost = lost
        self._refused = refused
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._state = _State.READING
        self._read_paused = False
        self._write_paused = False
        self._peer_done = False
        self._finishing = False

    # What the owner calls.

    def finish(self) -> None:
        """Close as soon as the answer that is being made or taken is out; at once when there is none."""
        self._finishing = True
        if self._state is _State.READING and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._refused:
            self._state = _State.LINGERING
            self._write_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            self._transport.close()
        else:
            self._restart_timer()

    def data_received(self, data: bytes) -> None:
        if self._state is _State.LINGERING:
            return
        self._buffer += data
        self._read_on()
        if len(self._buffer) > self._limits.head_bytes and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """True keeps the write side open for the answer that is being made."""
        self._peer_done = True
        return self._state is _State.ANSWERING

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._buffer.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._lost(self)

    # Reading.

    def _read_on(self) -> None:
        """Answer what the buffer holds, until it holds no whole head or an answer needs another
        turn of the loop."""
        while self._state is _State.READING and not self._write_paused and self._transport is not None:
            while self._buffer.startswith(b"\r\n"):  # RFC 9112 2.2: clients may send one after a body
                del self._buffer[:2]
            end = self._buffer.find(_END_OF_HEAD, 0, self._limits.head_bytes)
            if end < 0:
                if len(self._buffer) >= self._limits.head_bytes:
                    detail = f"the request head exceeds {self._limits.head_bytes} bytes"
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
                elif self._peer_done:
                    self._transport.close()
                else:
                    self._resume_reading()
                return
            head = bytes(self._buffer[:end])
            del self._buffer[: end + len(_END_OF_HEAD)]
            try:
                request = parse_head(head, self._limits.fields)
            except BadRequest as error:
                self._refuse(error.status, error.detail)
            else:
                self._begin(request)

    def _resume_reading(self) -> None:
        if self._read_paused and self._transport is not None:
            self._read_paused = False
            self._transport.resume_reading()

    # Answering.

    def _begin(self, request: Request) -> None:
        self._state = _State.ANSWERING
        self._restart_timer()
        try:
            response = self._answer(request)
            pieces = iter(response.body)
        except Exception:
            self._fail(request)
            return
        self._make_piece(request, response, pieces, [])

    def _make_piece(
        self, request: Request, response: Response, pieces: Iterator[bytes], made: list[bytes]
    ) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            piece = next(pieces, None)
        except Exception:
            self._fail(request)
            return
        if piece is not None:
            made.append(piece)
            self._loop.call_soon(self._make_piece, request, response, pieces, made)
            return
        self._respond(request, response, b"".join(made))
        self._read_on()

    def _respond(self, request: Request, response: Response, body: bytes) -> None:
        assert self._transport is not None
        keep_alive = request.keep_alive and not self._finishing
        self._transport.write(response.head(len(body), keep_alive=keep_alive))
        if request.method != "HEAD":
            self._transport.write(body)
        if keep_alive:
            self._state = _State.READING
            self._restart_timer()
        else:
            self._linger()

    def _fail(self, request: Request) -> None:
        _log.exception("cannot answer %s %s", request.method, request.path)
        self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "see the log", head_only=request.method == "HEAD")

    # Ending.

    def _refuse(self, status: HTTPStatus, detail: str, *, head_only: bool = False) -> None:
        self._write_refusal(status, detail, head_only=head_only)
        self._linger()

    def _write_refusal(self, status: HTTPStatus, detail: str, *, head_only: bool = False) -> None:
        assert self._transport is not None
        body = detail.encode() + b"\n"
        self._transport.write(Response.of_text(status, detail).head(len(body), keep_alive=False))
        if not head_only:
            self._transport.write(body)

    def _linger(self) -> None:
        """Say that nothing more will come and give the peer a moment to end the connection.

        Closing with unread input would reset the connection, and the answer could be lost: RFC 9112
        section 9.6.
        """
        assert self._transport is not None
        self._state = _State.LINGERING
        self._buffer.clear()
        if self._peer_done:
            self._transport.close()
            return
        self._resume_reading()
        self._transport.write_eof()
        self._restart_timer(_LINGER_S)

    def _restart_timer(self, timeout_s: float | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        timeout_s = self._limits.idle_timeout_s if timeout_s is None else timeout_s
        self._timer = self._loop.call_later(timeout_s, self._on_timeout)

    def _on_timeout(self) -> None:
        assert self._transport is not None  # connection_lost cancels the timer
        if self._state is _State.READING and self._buffer and not self._write_paused:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time")
        elif self._state is _State.READING and not self._write_paused:
            self._transport.close()
        else:
            self._transport.abort()  # the answer was not made, or the peer does not take it, or lingers
