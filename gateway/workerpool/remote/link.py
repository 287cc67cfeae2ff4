"""A gateway's link to a worker that shares no memory with it: the same frames, tensors inline.

Guarantees: `on_lost` is called exactly once, after which the link does nothing any more. What inputs are on
their way is bounded as an arena would bound it. A frame belongs to the stream that it came from: nothing of
an earlier link is ever taken for an answer to this one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.workerpool.questions import Questions, WorkerLost
from gateway.workerpool.remote.allowance import Allowance
from gateway.workerpool.remote.frames import FrameStream, Received, arena_bytes, behind
from gateway.workerpool.remote.pieces import Outbox, frames_in
from gateway.workerpool.remote.times import arrived, left_ns
from wire.arena import ArenaFull, ArenaInvalid
from wire.frames import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Begun,
    Body,
    Cancel,
    Credits,
    Done,
    Goodbye,
    Hello,
    Kind,
    ProtocolError,
    Run,
    TensorAt,
    Unload,
    common_version,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.call import BatchInput, Buffer
    from gateway.clock import Clock
    from gateway.workerpool.link import LinkEvents

T = TypeVar("T", bound=Body)


class RemoteLink:
    """Whoever has made it moves the bytes: calls `receive` with each message that comes, and sends what is in
    `outbox` when `on_output` says that there is something, or that the link is lost. `on_goodbye` is called
    when the pool asks the gateway to leave. A worker that has ended is lost with what the pool says of that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        events: LinkEvents,
        *,
        name: str,
        segment_bytes: int,
        budget_bytes: int,
        max_output_bytes: int,
        on_output: Callable[[], None],
        on_goodbye: Callable[[str], None],
    ) -> None:
        self.outbox = Outbox()
        self._clock = clock
        self._events = events
        self._name = name
        self._on_output = on_output
        self._on_goodbye = on_goodbye
        self._stream = FrameStream(max_output_bytes)
        self._allowance = Allowance(segment_bytes, budget_bytes)
        self._questions = Questions(loop)
        self._outputs: dict[tuple[int, int], memoryview] = {}  # {(number of the answer, offset): bytes}
        self._answers = itertools.count(1)
        self._hello: asyncio.Future[Hello] = loop.create_future()
        self._takes_no_runs = False  # it is lost, or to be left
        self.lost: str | None = None
        self.way_lost = False  # the worker may go on, without this link

    async def greet(self, timeout_s: float) -> Hello:
        """Exchange hellos and return the worker's. Its credits come after ours.

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
            RequestRefused: it failed, with the worker's or the pool's words.
            WorkerLost: the worker went away meanwhile, or the way to it.
            TimeoutError: no answer in time.
        """
        return await self._questions.ask(lambda id_: self._write(encode(kind, id_, body)), answer, timeout_s)

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
        """Send a batch. Its inputs are copied as they leave. `alone`: nothing may run beside it in the
        worker.

        Raises:
            ArenaFull: there is no room now, or the link is lost; nothing was sent.
            RegionTooLarge: there never will be.
        """
        if self._takes_no_runs:
            raise ArenaFull
        self._allowance.take(batch, arena_bytes([tensor.size_bytes for tensor in inputs]))
        tensors = behind([TensorAt(t.name, t.datatype, t.shape, 0, 0, t.size_bytes) for t in inputs])
        left = left_ns(deadline_ns, self._clock.now_ns())
        run = encode(Kind.RUN, batch, Run(servable, rows, tensors, outputs, left, alone))
        self._write(run, *[part for tensor in inputs for part in tensor.parts])

    def drain(self) -> None:
        """Take no more batches; those that were sent are answered."""
        self._takes_no_runs = True

    @property
    def busy(self) -> bool:
        """Whether a batch is not answered yet."""
        return self._allowance.used_bytes > 0

    def cancel(self, batch: int) -> None:
        """Ask that a batch is not started; it is answered all the same."""
        self._write(encode(Kind.CANCEL, 0, Cancel((batch,))))

    def forget(self, servable: int) -> None:
        """Unload a servable without waiting for it."""
        self._write(encode(Kind.UNLOAD, 0, Unload(servable)))

    def view(self, tensor: TensorAt) -> memoryview:
        """Return an output's bytes, valid until `free`.

        Raises:
            ArenaInvalid: this is none of the outputs that have come.
        """
        found = self._outputs.get((tensor.segment, tensor.offset))
        if found is None or len(found) < tensor.size_bytes:
            raise ArenaInvalid(f"output {tensor.name} has not come with its batch")
        return found[: tensor.size_bytes]

    def free(self, outputs: Sequence[TensorAt]) -> None:
        """The outputs of a batch have been read."""
        for tensor in outputs:
            self._outputs.pop((tensor.segment, tensor.offset), None)

    @property
    def arena_used_bytes(self) -> int:
        return self._allowance.used_bytes

    @property
    def arena_bytes(self) -> int:
        return 0

    @property
    def arena_mapped_bytes(self) -> int:
        """Nothing is mapped; what waits to be sent is the caller's memory."""
        return 0

    def _write(self, *parts: Buffer) -> None:
        if self.lost is None:
            self.outbox.put(*parts)
            self._on_output()

    def receive(self, message: bytes) -> None:
        """Take what has come. A message that breaks the protocol ends the link."""
        try:
            for frame in self._stream.feed(frames_in(message)):
                if self.lost is None:
                    self._on_frame(frame)
        except ProtocolError as error:
            self.close(f"the pool broke the protocol: {error}")

    def _on_frame(self, frame: Received) -> None:
        kind, id_, body, batch, tensors = frame
        if isinstance(batch, Done):
            self._on_done(id_, batch, tensors)
        elif kind == Kind.CREDITS:
            self._events.on_credits(decode(body, Credits).credits)
        elif kind in (Kind.ANSWER, Kind.FAILED):
            self._questions.settle(kind, id_, body)
        elif kind == Kind.BEGUN:
            if decode(body, Begun).batch:
                self._events.on_begun(id_)
            else:
                self._questions.begin(id_)
        elif kind == Kind.HELLO:
            if not self._hello.done():
                self._hello.set_result(decode(body, Hello))
        elif kind == Kind.GOODBYE:
            goodbye = decode(body, Goodbye)
            if goodbye.last:
                self.close(goodbye.reason, way_lost=False)
            else:
                self._on_goodbye(goodbye.reason)
        else:
            raise ProtocolError(f"unknown frame kind {kind}")

    def _on_done(self, id_: int, done: Done, tensors: tuple[list[Buffer], ...]) -> None:
        if not self._allowance.give_back(id_):
            raise ProtocolError(f"batch {id_} is answered, but is not on its way")
        # a place of its own for each answer, in the field that says where in an arena
        segment, placed = next(self._answers), []
        for tensor, parts in zip(done.outputs, tensors, strict=True):
            if tensor.size_bytes or (segment, tensor.offset) not in self._outputs:
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                self._outputs[segment, tensor.offset] = memoryview(data)
            placed.append(msgspec.structs.replace(tensor, segment=segment))
        here = arrived(msgspec.structs.replace(done, outputs=tuple(placed)), self._clock.now_ns())
        self._events.on_done(id_, here)

    def close(self, reason: str, *, way_lost: bool = True) -> None:
        """Report the link lost, once. `way_lost`: whatever the worker was doing is not the cause."""
        if self.lost is not None:
            return
        self.lost, self.way_lost = reason, way_lost
        self._takes_no_runs = True
        self.outbox.clear()
        self._allowance.clear()
        self._outputs.clear()
        self._questions.lose(reason, blameless=way_lost)
        if not self._hello.done():
            self._hello.set_exception(WorkerLost(reason))
            self._hello.exception()  # nobody may be waiting
        self._events.on_lost(reason)
        self._on_output()
