"""Frames of a stream that has no shared memory: the tensors of a batch come behind its frame."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from wire.arena import aligned
from wire.frames import HEADER_BYTES, MAX_BODY_BYTES, Done, Kind, ProtocolError, Run, TensorAt, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.call import Buffer

_HEADER = struct.Struct("<IHHQ")  # as in wire/frames.py


class Received(NamedTuple):
    """One frame. `tensors` are the parts of each tensor behind it; of other kinds than RUN and DONE there are
    none, and `batch` is None.
    """

    kind: int
    id: int
    body: bytes
    batch: Run | Done | None = None
    tensors: tuple[list[Buffer], ...] = ()


class FrameStream:
    """Puts pieces together again. `max_tensor_bytes` bounds what one frame may have behind it. Memory is
    taken only as bytes arrive, but they are kept until the last one is there.
    """

    def __init__(self, max_tensor_bytes: int) -> None:
        self._max_tensor_bytes = max_tensor_bytes
        self._rest = bytearray()  # of a frame whose body is not here yet
        self._laden: Received | None = None  # a batch whose tensors are on their way
        self._parts: list[memoryview] = []
        self._missing_bytes = 0

    def feed(self, data: memoryview) -> list[Received]:
        """Return the frames that are complete now; their tensors refer to what was fed.

        Raises:
            ProtocolError: a length is over its limit, a body is malformed, or descriptors are announced.
        """
        received: list[Received] = []
        at = 0
        while at < len(data) or (self._laden is not None and not self._missing_bytes):
            if self._laden is not None:
                taken = data[at : at + self._missing_bytes]
                at += len(taken)
                self._missing_bytes -= len(taken)
                if taken:
                    self._parts.append(taken)
                if not self._missing_bytes:
                    received.append(self._complete(self._laden))
                continue
            frame, at = self._frame(data, at)
            if frame is None:
                break
            if frame.batch is None:
                received.append(frame)
        return received

    def _frame(self, data: memoryview, at: int) -> tuple[Received | None, int]:
        """Return the next frame and where it ends; None where that is beyond the data."""
        if not self._rest and len(data) - at >= HEADER_BYTES:
            end = at + HEADER_BYTES + _body_bytes(data[at : at + HEADER_BYTES])
            if end <= len(data):
                return self._read(data[at:end]), end
        while True:
            wanted = HEADER_BYTES
            if len(self._rest) >= HEADER_BYTES:
                wanted += _body_bytes(self._rest)
                if len(self._rest) == wanted:
                    frame = self._read(memoryview(bytes(self._rest)))
                    self._rest.clear()
                    return frame, at
            taken = data[at : at + wanted - len(self._rest)]
            if not taken:
                return None, at
            self._rest += taken
            at += len(taken)

    def _read(self, data: memoryview) -> Received:
        _, kind, descriptors, id_ = _HEADER.unpack_from(data)
        if descriptors:
            raise ProtocolError("a frame announces descriptors, which cannot come")
        body = bytes(data[HEADER_BYTES:])
        if kind == Kind.RUN:
            run = decode(body, Run)
            return self._expect(Received(kind, id_, body, run), run.inputs)
        if kind == Kind.DONE:
            done = decode(body, Done)
            return self._expect(Received(kind, id_, body, done), done.outputs)
        return Received(kind, id_, body)

    def _expect(self, frame: Received, tensors: Sequence[TensorAt]) -> Received:
        at = 0
        for tensor in tensors:
            if tensor.segment or tensor.offset != at or tensor.size_bytes < 0:
                raise ProtocolError(f"tensor {tensor.name} is not behind its frame")
            at += tensor.size_bytes
        if at > self._max_tensor_bytes:
            raise ProtocolError(f"{at} bytes of tensors are over the limit of {self._max_tensor_bytes}")
        self._laden, self._missing_bytes = frame, at
        return frame

    def _complete(self, frame: Received) -> Received:
        batch = frame.batch
        tensors = batch.inputs if isinstance(batch, Run) else batch.outputs if batch is not None else ()
        parts = _cut(self._parts, [tensor.size_bytes for tensor in tensors])
        self._laden, self._parts = None, []
        return frame._replace(tensors=parts)


def _body_bytes(header: memoryview | bytearray) -> int:
    length: int = _HEADER.unpack_from(header)[0]
    if length > MAX_BODY_BYTES:
        raise ProtocolError(f"a frame announces {length} bytes, the limit is {MAX_BODY_BYTES}")
    return length


def _cut(parts: list[memoryview], sizes: list[int]) -> tuple[list[Buffer], ...]:
    """Return the parts of each tensor."""
    tensors: list[list[Buffer]] = []
    waiting = iter(parts)
    rest = memoryview(b"")
    for size in sizes:
        tensor: list[Buffer] = []
        while size:
            if not rest:
                rest = next(waiting)
            taken, rest = rest[:size], rest[size:]
            tensor.append(taken)
            size -= len(taken)
        tensors.append(tensor)
    return tuple(tensors)


def behind(tensors: Sequence[TensorAt]) -> tuple[TensorAt, ...]:
    """Return where these tensors lie when they come behind their frame."""
    at, placed = 0, []
    for tensor in tensors:
        placed.append(msgspec.structs.replace(tensor, segment=0, offset=at))
        at += tensor.size_bytes
    return tuple(placed)


def arena_bytes(sizes: Sequence[int]) -> int:
    """Return what tensors of these sizes take in an arena."""
    return max(sum(aligned(size) for size in sizes), 64)
