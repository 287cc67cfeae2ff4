"""The few messages between a gateway and the broker of a pool on the same machine.

Packets on a Unix socket (SOCK_SEQPACKET), JSON, with at most one descriptor. A gateway asks, the broker
answers; after `Connected`, which brings a connection to the worker itself, only the broker speaks, and the
gateway closes the socket when it has left the worker.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct

import msgspec

_MAX_PACKET_BYTES = 64 << 10
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid: see unix(7)


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """What does the pool have?"""


class Connect(msgspec.Struct, frozen=True, tag="connect"):
    """A connection to the worker of a slot, please."""

    slot: str
    gateway: str


class End(msgspec.Struct, frozen=True, tag="end"):
    """This worker hangs; it is ended unless it is another process by now."""

    slot: str
    pid: int
    reason: str


class Described(msgspec.Struct, frozen=True, tag="described"):
    node: str
    release: str
    slots: tuple[str, ...]


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """Comes with the descriptor."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The worker has; `reason` is how."""

    reason: str


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """The pool ends: send nothing more, and close when all is answered."""

    reason: str


Question = Describe | Connect | End
Answer = Described | Connected | Refused | Ended | Leave
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Question | Answer)


class ExchangeBroken(Exception):
    """The other side has gone, or does not speak this."""


class Exchange:
    """One side of a socket, which it owns. One task at a time may receive."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    @property
    def peer_uid(self) -> int:
        """Whose process is at the other end, as the kernel says."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid: int = _CREDENTIALS.unpack(raw)[1]
        return uid

    def send(self, message: Question | Answer, descriptor: int | None = None) -> None:
        """Raises ExchangeBroken, also when the other side does not read."""
        data = _encoder.encode(message)
        try:
            if descriptor is None:
                self._socket.send(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])
        except OSError as error:
            raise ExchangeBroken(f"sending failed: {error.strerror}") from error

    async def receive(self, timeout_s: float | None = None) -> tuple[Question | Answer, int | None]:
        """Return the next message and its descriptor, which the caller owns then.

        Raises:
            ExchangeBroken: also when none comes in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return self._receive()
                    except BlockingIOError:
                        await self._readable()
        except TimeoutError as error:
            raise ExchangeBroken(f"no answer within {timeout_s:g} s") from error

    def _receive(self) -> tuple[Question | Answer, int | None]:
        space = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise
        except OSError as error:
            raise ExchangeBroken(f"the connection broke: {error.strerror}") from error
        descriptors = array.array("i")
        for level, type_, payload in ancillary:
            if level == socket.SOL_SOCKET and type_ == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        try:
            if not data:
                raise ExchangeBroken("the other side has closed the connection")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) > 1:
                raise ExchangeBroken("a packet is too large")
            message = _decoder.decode(data)
        except msgspec.DecodeError as error:
            _close(descriptors)
            raise ExchangeBroken(f"a malformed packet: {error}") from error
        except ExchangeBroken:
            _close(descriptors)
            raise
        return message, descriptors[0] if descriptors else None

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._socket.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()


def _close(descriptors: array.array[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def is_trusted(uid: int) -> bool:
    """Whether a peer of this user may be talked to: it is this process's own, or root."""
    return uid in (0, os.geteuid())
