"""What a gateway process and the one that has started it tell each other.

The end of the connection says that the other has ended: a child whose parent is gone drains and ends too.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_MAX_BYTES = 1 << 16


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A child serves. `http` are the addresses of all processes, joined by commas."""

    grpc: str
    http: str
    models: int
    frontend: str
    took_s: float
    processes: int = 1

    def __str__(self) -> str:
        several = f" processes={self.processes}" if self.processes > 1 else ""
        return (
            f"ready grpc={self.grpc} http={self.http} models={self.models} frontend={self.frontend}{several} "
            f"in {self.took_s:.1f} s"
        )


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A child cannot serve."""

    reason: str


class HandOver(msgspec.Struct, frozen=True, tag="hand over"):
    """Another process serves now: the child takes no more connections, finishes what it has, and ends."""


Message = Ready | Failed | HandOver
_decoder = msgspec.json.Decoder(Message)


class Control:
    """One end. Messages stay whole: the socket is one of packets."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    @classmethod
    def of(cls, descriptor: int) -> Control:
        """Take an inherited descriptor over."""
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        return cls(sock)

    @classmethod
    def pair(cls) -> tuple[Control, socket.socket]:
        """Return this end and the other one, which a child inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message; to a peer that has ended, nothing."""
        try:
            self._socket.send(msgspec.json.encode(message))
        except OSError:
            pass

    def listen(self, loop: asyncio.AbstractEventLoop, heard: Callable[[Message | None], None]) -> None:
        """Call `heard` with each message, and with None when the peer has ended. What another release says
        and this one does not know is passed over.
        """

        def on_readable() -> None:
            try:
                packet = self._socket.recv(_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                loop.remove_reader(self._socket.fileno())
                heard(None)
                return
            try:
                message = _decoder.decode(packet)
            except msgspec.DecodeError:
                return
            heard(message)

        loop.add_reader(self._socket.fileno(), on_readable)

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._socket.fileno())
        self._socket.close()
