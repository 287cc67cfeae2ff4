"""A gateway's connection to one worker: batches out, results in, and the arenas of both directions.

Guarantees: `on_lost` is called exactly once, after which the link does nothing any more; the input region of
a batch is freed when the worker has answered it; what is written within one turn of the loop leaves in one
system call.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gateway.workerpool.copying import Copy, Copying
from gateway.workerpool.questions import Questions, RequestRefused, WorkerLost
from wire.arena import ArenaFull, ArenaInvalid, ArenaReader, ArenaWriter
from wire.frames import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Begun,
    Body,
    Cancel,
    Credits,
    Done,
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

    from gateway.call import BatchInput

# At most this many regions that were read wait for the next batch; idle memory in the worker's arena, no
# more.
_MAX_FREED = 64

T = TypeVar("T", bound=Body)


class LinkEvents(NamedTuple):
    """What a link tells its owner; called on the loop. Only batches that run alone are said to have begun."""

    on_begun: Callable[[int], None]
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
        copying: Copying | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._events = events
        self._name = name
        self._copying = copying or Copying(loop)
        self._arena = ArenaWriter(segment_bytes, budget_bytes)
        self._reader = ArenaReader(segment_bytes + 2 * budget_bytes)
        self._frames = FrameReader()
        self._questions = Questions(loop)
        self._inputs: dict[int, tuple[int, int]] = {}  # {batch id: (segment, offset) of its inputs}
        self._out: deque[tuple[bytes, list[int]]] = deque()  # (data, descriptors)
        self._freed: list[tuple[int, int]] = []  # (segment, offset) of outputs that were read
        self._freed_bytes = 0
        self._free_at_bytes = segment_bytes // 8
        self._flush_due = False
        self._writing = False
        self._hello: asyncio.Future[Hello] = loop.create_future()
        self._stays: asyncio.Future[bool] = loop.create_future()  # whether the worker outlives our goodbye
        self._lost: str | None = None
        self._takes_no_runs = False  # it is lost, or to be left
        loop.add_reader(sock.fileno(), self._on_readable)

    async def greet(self, timeout_s: float) -> Hello:
        """Exchange hellos and return the worker's.

        Ours goes last: it is what the worker answers with credits, which its owner must be ready for.

        Raises:
            WorkerLost, ProtocolError, TimeoutError: this is no worker to talk to.
        """
        hello = await self.hear(timeout_s)
        common_version((PROTOCOL_MIN, PROTOCOL_MAX), (hello.protocol_min, hello.protocol_max))
        self.take_part()
        return hello

    async def hear(self, timeout_s: float) -> Hello:
        """Return the worker's hello without an answer: it grants no credits, and stays as long as the link
        does.

        Raises:
            WorkerLost, TimeoutError: this is no worker to talk to.
        """
        async with asyncio.timeout(timeout_s):
            return await self._hello

    def take_part(self) -> None:
        """Answer the worker's hello: it grants credits from now on."""
        if self._lost is None:
            self._write(encode(Kind.HELLO, 0, Hello(PROTOCOL_MIN, PROTOCOL_MAX, self._name, os.getpid())))

    async def request(
        self,
        kind: Kind,
        body: Body,
        answer: type[T],
        timeout_s: float,
        on_begun: Callable[[], None] | None = None,
    ) -> T:
        """Ask the worker for something that takes long and return its answer. `on_begun` is called when the
        worker begins with it.

        Raises:
            RequestRefused: it failed, with the worker's words.
            WorkerLost: the worker went away meanwhile.
            TimeoutError: no answer in time.
        """
        return await self._questions.ask(
            lambda id_: self._write(encode(kind, id_, body)), answer, timeout_s, on_begun
        )

    async def leave(self, timeout_s: float) -> bool:
        """Say goodbye and close the link. Returns whether the worker goes on, for other gateways; false too
        when it does not answer in time.
        """
        if self._lost is None:
            self._write(encode(Kind.GOODBYE, 0, Goodbye("the gateway ends")))
            await asyncio.wait((self._stays,), timeout=timeout_s)
        self.close("the gateway has left")
        return self._stays.result()

    def run(
        self,
        batch: int,
        servable: int,
        rows: int,
        inputs: Sequence[BatchInput],
        outputs: tuple[str, ...],
        deadline_ns: int,
        *,
        alone: bool = False,
    ) -> None:
        """Send a batch, at once or, a large one, when it has been copied: one region of the arena holds all
        of its inputs. `alone`: nothing may run beside it
        in the worker.

        Raises:
            ArenaFull: there is no room now, or the link is lost; nothing was sent.
            RegionTooLarge: there never will be.
        """
        if self._takes_no_runs:
            raise ArenaFull
        total = sum((tensor.size_bytes + 63) & ~63 for tensor in inputs)
        region = self._arena.allocate(total)
        self._announce()
        view = self._arena.view(region)
        at, tensors, copies = 0, [], []
        for tensor in inputs:
            copies.append(Copy(tensor.parts, view[at : at + tensor.size_bytes]))
            offset = region.offset + at
            tensors.append(
                TensorAt(
                    tensor.name, tensor.datatype, tensor.shape, region.segment, offset, tensor.size_bytes
                )
            )
            at += (tensor.size_bytes + 63) & ~63
        run = encode(Kind.RUN, batch, Run(servable, rows, tuple(tensors), outputs, deadline_ns, alone))

        def send() -> None:
            if self._lost is None:
                self._inputs[batch] = (region.segment, region.offset)
                self._write_freed()
                self._write(run)
                self._hurry()

        self._copying.copy(copies, total, send)

    def drain(self) -> None:
        """Take no more batches; those that were sent are answered."""
        self._takes_no_runs = True

    @property
    def busy(self) -> bool:
        """Whether a batch is not answered yet."""
        return self._arena.used_bytes > 0

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
    def arena_bytes(self) -> int:
        return self._arena.mapped_bytes

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

    def _hurry(self) -> None:
        """Send what waits now rather than in the loop's next turn. What fails is left for that turn: whoever
        sends a batch is not to find the link lost behind its back.
        """
        try:
            while self._out and not self._writing:
                self._send_some()
        except OSError:
            pass  # BlockingIOError too

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
            self._questions.settle(kind, id_, body)
        elif kind == Kind.BEGUN:
            self._on_begun(id_, decode(body, Begun))
        elif kind == Kind.HELLO:
            if not self._hello.done():
                self._hello.set_result(decode(body, Hello))
        elif kind == Kind.GOODBYE:
            goodbye = decode(body, Goodbye)
            self._stays.set_result(not goodbye.last)
            self.close(f"the worker closed the link: {goodbye.reason}")
        else:
            raise ProtocolError(f"unknown frame kind {kind}")

    def _free_inputs(self, batch: int) -> None:
        region = self._inputs.pop(batch, None)
        if region is not None:
            self._arena.free(*region)
            self._announce()

    def _on_begun(self, id_: int, begun: Begun) -> None:
        if begun.batch:
            self._events.on_begun(id_)
        else:
            self._questions.begin(id_)

    def close(self, reason: str) -> None:
        """Close the link and report it lost, once."""
        if self._lost is not None:
            return
        self._lost = reason
        self._takes_no_runs = True
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
        self._questions.lose(reason)
        if not self._hello.done():
            self._hello.set_exception(WorkerLost(reason))
            self._hello.exception()  # nobody may be waiting
        if not self._stays.done():
            self._stays.set_result(False)
        self._events.on_lost(reason)
        self._arena.close()
        self._reader.close()


__all__ = ["LinkEvents", "RequestRefused", "WorkerLink", "WorkerLost"]
