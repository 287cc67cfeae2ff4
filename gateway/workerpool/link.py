"""A gateway's connection to one worker: batches out, results in, and the arenas of both directions.

Guarantees: `on_lost` is called exactly once, after which the link does nothing any more; the input region of
a batch is freed when the worker has answered it; what is written within one turn of the loop leaves in one
system call.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from wire.arena import ArenaFull, ArenaInvalid, ArenaReader, ArenaWriter
from wire.frames import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Body,
    Cancel,
    Credits,
    Done,
    Failure,
    Frame,
    FrameReader,
    Freed,
    Goodbye,
    Hello,
    Kind,
    ProtocolError,
    Run,
    SegmentOpened,
    SegmentRetired,
    TensorAt,
    Unload,
    common_version,
    decode,
    encode,
)
from wire.sockets import receive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.call import BatchInput, Buffer

# Below this the parts of a batch are joined and copied once more, which is cheaper than one copy call each.
_JOIN_BELOW_BYTES = 64 << 10

# At most this many regions that were read wait for the next batch; idle memory in the worker's arena, no
# more.
_MAX_FREED = 64

T = TypeVar("T", bound=Body)


class WorkerLost(Exception):
    """The worker went away before it answered."""


class RequestRefused(Exception):
    """The worker answered a control request with a failure."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class LinkEvents(NamedTuple):
    """What a link tells its owner; called on the loop."""

    on_done: Callable[[int, Done], None]
    on_credits: Callable[[int], None]
    on_lost: Callable[[str], None]


class WorkerLink:
    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        events: LinkEvents,
        *,
        name: str,
        segment_bytes: int,
        budget_bytes: int,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._events = events
        self._name = name
        self._arena = ArenaWriter(segment_bytes, budget_bytes)
        self._reader = ArenaReader(segment_bytes + 2 * budget_bytes)
        self._frames = FrameReader()
        self._ids = itertools.count(1)
        self._answers: dict[int, tuple[type[Body], asyncio.Future[Body]]] = {}
        self._inputs: dict[int, tuple[int, int]] = {}  # {batch id: (segment, offset) of its inputs}
        self._out: deque[tuple[bytes, list[int]]] = deque()  # (data, descriptors)
        self._freed: list[tuple[int, int]] = []  # (segment, offset) of outputs that were read
        self._freed_bytes = 0
        self._free_at_bytes = segment_bytes // 8
        self._flush_due = False
        self._writing = False
        self._hello: asyncio.Future[Hello] = loop.create_future()
        self._lost: str | None = None
        loop.add_reader(sock.fileno(), self._on_readable)

    async def greet(self, timeout_s: float) -> Hello:
        """Exchange hellos and return the worker's.

        Ours goes last: it is what the worker answers with credits, which its owner must be ready for.

        Raises:
            WorkerLost, ProtocolError, TimeoutError: this is no worker to talk to.
        """
        async with asyncio.timeout(timeout_s):
            hello = await self._hello
        common_version((PROTOCOL_MIN, PROTOCOL_MAX), (hello.protocol_min, hello.protocol_max))
        self._write(encode(Kind.HELLO, 0, Hello(PROTOCOL_MIN, PROTOCOL_MAX, self._name, os.getpid())))
        return hello

    async def request(self, kind: Kind, body: Body, answer: type[T], timeout_s: float) -> T:
        """Ask the worker for something that takes long and return its answer.

        Raises:
            RequestRefused: it failed, with the worker's words.
            WorkerLost: the worker went away meanwhile.
            TimeoutError: no answer in time.
        """
        if self._lost is not None:
            raise WorkerLost(self._lost)
        id_ = next(self._ids)
        future: asyncio.Future[Body] = self._loop.create_future()
        self._answers[id_] = (answer, future)
        self._write(encode(kind, id_, body))
        try:
            async with asyncio.timeout(timeout_s):
                return await future  # type: ignore[return-value]  # the table keeps each answer's type
        finally:
            self._answers.pop(id_, None)

    def run(
        self,
        batch: int,
        servable: int,
        rows: int,
        inputs: Sequence[BatchInput],
        outputs: tuple[str, ...],
        deadline_ns: int,
    ) -> None:
        """Send a batch: one region of the arena holds all of its inputs.

        Raises:
            ArenaFull: there is no room now, or the link is lost; nothing was sent.
            RegionTooLarge: there never will be.
        """
        if self._lost is not None:
            raise ArenaFull
        total = sum((tensor.size_bytes + 63) & ~63 for tensor in inputs)
        region = self._arena.allocate(total)
        self._announce()
        view = self._arena.view(region)
        at, tensors = 0, []
        for tensor in inputs:
            _copy(tensor.parts, view[at : at + tensor.size_bytes])
            offset = region.offset + at
            tensors.append(
                TensorAt(
                    tensor.name, tensor.datatype, tensor.shape, region.segment, offset, tensor.size_bytes
                )
            )
            at += (tensor.size_bytes + 63) & ~63
        self._inputs[batch] = (region.segment, region.offset)
        self._write_freed()
        self._write(encode(Kind.RUN, batch, Run(servable, rows, tuple(tensors), outputs, deadline_ns)))

    def cancel(self, batch: int) -> None:
        """Ask that a batch is not started; it is answered all the same."""
        if self._lost is None:
            self._write(encode(Kind.CANCEL, 0, Cancel((batch,))))

    def forget(self, servable: int) -> None:
        """Unload a servable without waiting for it."""
        if self._lost is None:
            self._write(encode(Kind.UNLOAD, 0, Unload(servable)))

    def view(self, tensor: TensorAt) -> memoryview:
        """Return an output's bytes, valid until `free`.

        Raises:
            ArenaInvalid: the worker named bytes that it never shared.
        """
        return self._reader.view(tensor.segment, tensor.offset, tensor.size_bytes)

    def free(self, outputs: Sequence[TensorAt]) -> None:
        """The outputs of a batch have been read. The worker hears of it with the next batch, or at once when
        much has come together.
        """
        if not outputs or self._lost is not None:
            return
        for tensor in outputs:
            self._freed.append((tensor.segment, tensor.offset))
            self._freed_bytes += tensor.size_bytes
        if self._freed_bytes >= self._free_at_bytes or len(self._freed) >= _MAX_FREED:
            self._write_freed()

    def _write_freed(self) -> None:
        if self._freed:
            self._write(encode(Kind.FREE, 0, Freed(tuple(self._freed))))
            self._freed.clear()
            self._freed_bytes = 0

    @property
    def arena_used_bytes(self) -> int:
        return self._arena.used_bytes

    @property
    def arena_mapped_bytes(self) -> int:
        return self._arena.mapped_bytes + self._reader.mapped_bytes

    def _announce(self) -> None:
        for segment, size_bytes, fd in self._arena.opened:
            self._write(encode(Kind.SEGMENT, 0, SegmentOpened(segment, size_bytes), descriptors=1), [fd])
        self._arena.opened.clear()
        for segment in self._arena.retired:
            self._write(encode(Kind.RETIRE, 0, SegmentRetired(segment)))
        self._arena.retired.clear()

    def _write(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        # duplicated, because a segment may be retired before its announcement has left
        self._out.append((data, [os.dup(fd) for fd in descriptors]))
        if not self._flush_due and not self._writing:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._lost is not None:
            return
        try:
            while self._out:
                self._send_some()
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError as error:
            self.close(f"sending failed: {error.strerror}")
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _send_some(self) -> None:
        data, descriptors = self._out[0]
        if descriptors:
            sent = socket.send_fds(self._socket, [data], descriptors)
            for fd in descriptors:
                os.close(fd)
            self._out.popleft()
        else:
            chunks = []
            while self._out and not self._out[0][1]:
                chunks.append(self._out.popleft()[0])
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._out.appendleft((data, []))
            sent = self._socket.send(data)
            self._out.popleft()
        if sent < len(data):
            self._out.appendleft((data[sent:], []))

    def _on_readable(self) -> None:
        try:
            data, descriptors = receive(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(f"the connection broke: {error.strerror}")
            return
        if not data:
            self.close("the worker closed the connection")
            return
        frames: list[Frame] = []
        try:
            frames = self._frames.feed(data, descriptors)
            for frame in frames:
                if self._lost is None:
                    self._on_frame(frame)
        except (ProtocolError, ArenaInvalid) as error:
            self.close(f"the worker broke the protocol: {error}")
        finally:
            for frame in frames:
                for fd in frame.descriptors:  # that nobody took
                    os.close(fd)

    def _on_frame(self, frame: Frame) -> None:
        kind, id_, body, descriptors = frame
        if kind == Kind.DONE:
            self._free_inputs(id_)
            self._events.on_done(id_, decode(body, Done))
        elif kind == Kind.SEGMENT:
            opened = decode(body, SegmentOpened)
            if len(descriptors) != 1:
                raise ProtocolError("a SEGMENT frame carries one descriptor")
            self._reader.attach(opened.segment, opened.size_bytes, descriptors.pop())
        elif kind == Kind.RETIRE:
            self._reader.retire(decode(body, SegmentRetired).segment)
        elif kind == Kind.CREDITS:
            self._events.on_credits(decode(body, Credits).credits)
        elif kind in (Kind.ANSWER, Kind.FAILED):
            self._on_answer(kind, id_, body)
        elif kind == Kind.HELLO:
            if not self._hello.done():
                self._hello.set_result(decode(body, Hello))
        elif kind == Kind.GOODBYE:
            self.close(f"the worker closed the link: {decode(body, Goodbye).reason}")
        else:
            raise ProtocolError(f"unknown frame kind {kind}")

    def _free_inputs(self, batch: int) -> None:
        region = self._inputs.pop(batch, None)
        if region is not None:
            self._arena.free(*region)
            self._announce()

    def _on_answer(self, kind: int, id_: int, body: bytes) -> None:
        waiting = self._answers.get(id_)
        if waiting is None or waiting[1].done():
            return  # asked by somebody who has given up
        type_, future = waiting
        if kind == Kind.ANSWER:
            future.set_result(decode(body, type_))
        else:
            failure = decode(body, Failure)
            future.set_exception(RequestRefused(failure.message, retryable=failure.retryable))

    def close(self, reason: str) -> None:
        """Close the link and report it lost, once."""
        if self._lost is not None:
            return
        self._lost = reason
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, descriptors in self._out:
            for fd in descriptors:
                os.close(fd)
        self._out.clear()
        for fd in self._frames.take_descriptors():
            os.close(fd)
        for _, future in self._answers.values():
            if not future.done():
                future.set_exception(WorkerLost(reason))
        if not self._hello.done():
            self._hello.set_exception(WorkerLost(reason))
            self._hello.exception()  # nobody may be waiting
        self._events.on_lost(reason)
        self._arena.close()
        self._reader.close()


def _copy(parts: Sequence[Buffer], view: memoryview) -> None:
    if len(parts) == 1:
        view[:] = parts[0]
    elif len(view) < _JOIN_BELOW_BYTES:
        view[:] = b"".join(parts)
    else:
        at = 0
        for part in parts:
            end = at + len(part)
            view[at:end] = part
            at = end
