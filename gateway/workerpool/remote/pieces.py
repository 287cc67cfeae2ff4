"""The stream of frames in pieces, as gRPC messages carry them: `FromGateway` and `FromPool` of
protos/pool_link.proto.

The encoding of a `frames` field is written here by hand: the generated classes copy a tensor twice more on
each side.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from wire.frames import ProtocolError

if TYPE_CHECKING:
    from gateway.call import Buffer

# Larger ones would save little; a message is held as a whole on both sides.
PIECE_BYTES = 1 << 20
MAX_MESSAGE_BYTES = PIECE_BYTES + 64
_FRAMES = b"\x12"  # field 2, length-delimited
_MAX_VARINT_BYTES = 5


def is_frames(message: bytes) -> bool:
    """Whether a message carries frames, rather than how the stream is opened."""
    return message.startswith(_FRAMES)


def frames_in(message: bytes) -> memoryview:
    """Return the bytes that a message carries, without a copy.

    Raises:
        ProtocolError: it has no `frames`, or something else too.
    """
    length, shift = 0, 0
    if not message.startswith(_FRAMES):
        raise ProtocolError("a message without frames")
    for at in range(1, min(len(message), _MAX_VARINT_BYTES + 1)):
        length |= (message[at] & 0x7F) << shift
        shift += 7
        if message[at] < 0x80:
            if at + 1 + length != len(message):
                break
            return memoryview(message)[at + 1 :]
    raise ProtocolError("a malformed message of frames")


class Outbox:
    """Bytes that wait to be sent, in the order in which they were put. `size_bytes` are those that wait."""

    def __init__(self) -> None:
        self._parts: deque[Buffer] = deque()
        self.size_bytes = 0

    def put(self, *parts: Buffer) -> None:
        """The parts must not change until they were taken."""
        for part in parts:
            size_bytes = memoryview(part).nbytes
            if size_bytes:
                self._parts.append(part)
                self.size_bytes += size_bytes

    def take(self) -> bytes:
        """Return the next message; there must be something to send. One copy is made of each byte."""
        parts, room = self._parts, PIECE_BYTES
        chosen: list[Buffer] = []
        while parts and room:
            view = memoryview(parts[0]).cast("B")
            if len(view) > room:
                chosen.append(view[:room])
                parts[0] = view[room:]
                room = 0
            else:
                chosen.append(parts.popleft())
                room -= len(view)
        size_bytes = PIECE_BYTES - room
        self.size_bytes -= size_bytes
        return b"".join([_FRAMES, _varint(size_bytes), *chosen])

    def clear(self) -> None:
        self._parts.clear()
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parts)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
