"""Answers on their way from a worker to a gateway elsewhere.

Outputs lie in the worker's arena until their turn. When several wait they are copied out of it, up to a
limit: a gateway that reads slowly is not to fill the arena and make the slot wait for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.workerpool.remote.frames import behind
from gateway.workerpool.remote.times import departing
from wire.frames import Kind, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.call import Buffer
    from gateway.workerpool.link import WorkerLink
    from gateway.workerpool.remote.pieces import Outbox
    from wire.frames import Done

_MAX_COPIED_BYTES = 64 << 20


class _Waiting(NamedTuple):
    frame: bytes
    parts: list[Buffer]
    in_arena: Done | None  # whose outputs are still to be freed
    copied_bytes: int


class Departures:
    """All that goes to one gateway, in order."""

    def __init__(self, link: WorkerLink, outbox: Outbox, now_ns: Callable[[], int]) -> None:
        self._link = link
        self._outbox = outbox
        self._now_ns = now_ns
        self._waiting: deque[_Waiting] = deque()
        self._leaving: Done | None = None  # its outputs are in the outbox
        self._copied_bytes = 0

    def put(self, frame: bytes) -> None:
        """Send a frame without tensors."""
        if self._waiting:
            self._waiting.append(_Waiting(frame, [], None, 0))
        else:
            self._outbox.put(frame)

    def answer(self, batch: int, done: Done) -> None:
        """Send a batch's answer with its outputs. Raises ArenaInvalid."""
        away = departing(msgspec.structs.replace(done, outputs=behind(done.outputs)), self._now_ns())
        parts: list[Buffer] = [self._link.view(tensor) for tensor in done.outputs]
        in_arena: Done | None = done
        copied_bytes = sum(tensor.size_bytes for tensor in done.outputs)
        if (self._waiting or self._outbox) and self._copied_bytes + copied_bytes <= _MAX_COPIED_BYTES:
            parts = [bytes(part) for part in parts]
            self._link.free(done.outputs)
            self._copied_bytes += copied_bytes
            in_arena = None
        else:
            copied_bytes = 0
        self._waiting.append(_Waiting(encode(Kind.DONE, batch, away), parts, in_arena, copied_bytes))
        self._fill()

    def take(self) -> bytes | None:
        """Return the next message, None where there is nothing to send."""
        self._fill()
        if not self._outbox:
            return None
        message = self._outbox.take()
        self._fill()
        return message

    def _fill(self) -> None:
        """Put what waits into the outbox once that is empty, and free what has left it."""
        if self._outbox:
            return
        if self._leaving is not None:
            self._link.free(self._leaving.outputs)
            self._leaving = None
        while self._waiting and self._leaving is None:
            frame, parts, self._leaving, copied_bytes = self._waiting.popleft()
            self._copied_bytes -= copied_bytes
            self._outbox.put(frame, *parts)
