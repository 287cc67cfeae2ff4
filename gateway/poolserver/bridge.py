"""Between a stream from a gateway and a worker of this pool, which sees the gateway as one more connection.

Guarantees: what the worker has answered leaves before the stream ends; nothing that a gateway sends is held
beyond what it was told that it may have in flight; a gateway that is gone leaves its models with the worker
for the pool's grace period.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.call import BatchInput
from gateway.poolserver.departures import Departures
from gateway.workerpool.link import LinkEvents, WorkerLink
from gateway.workerpool.questions import RequestRefused, WorkerLost
from gateway.workerpool.remote.allowance import Allowance
from gateway.workerpool.remote.frames import FrameStream, Received, arena_bytes
from gateway.workerpool.remote.pieces import Outbox, frames_in
from gateway.workerpool.remote.times import due_ns
from registry.fetching import FetchFailed
from wire.arena import ArenaFull, ArenaInvalid, RegionTooLarge
from wire.frames import (
    Begun,
    Body,
    Cancel,
    Credits,
    Done,
    Failure,
    Goodbye,
    Hello,
    Kind,
    Load,
    Loaded,
    Outcome,
    Probe,
    Probed,
    ProtocolError,
    Report,
    Run,
    Unload,
    WarmedUp,
    WarmUp,
    decode,
    encode,
)

if TYPE_CHECKING:
    import socket

    from gateway.call import Buffer
    from gateway.clock import Clock
    from gateway.poolserver.sources import Sources
    from gateway.workerpool.copying import Copying
    from gateway.workerpool.remote.terms import Terms

# The gateway gives up before.
_REQUEST_TIMEOUT_S = 3600.0
_MAX_REQUESTS = 256  # at once
_ANSWERS: dict[int, tuple[type[Body], type[Body]]] = {
    Kind.LOAD: (Load, Loaded),
    Kind.PROBE: (Probe, Probed),
    Kind.WARM_UP: (WarmUp, WarmedUp),
    Kind.UNLOAD: (Unload, Report),
    Kind.REPORT: (Begun, Report),
}


class _Batch(NamedTuple):
    id: int
    run: Run
    inputs: list[BatchInput]


class Bridge:
    """`terms` are the gateway's: its name, and what its batches may have in flight. `tasks` is the group of
    its stream, for requests that take long.
    """

    def __init__(
        self,
        sock: socket.socket,
        terms: Terms,
        max_output_bytes: int,
        sources: Sources,
        clock: Clock,
        copying: Copying,
        tasks: asyncio.TaskGroup,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.output = asyncio.Event()  # there is something to take, or the link is lost
        self.lost: asyncio.Future[str] = loop.create_future()  # why the worker is
        self._clock = clock
        self._tasks = tasks
        self._sources = sources
        self._max_output_bytes = max_output_bytes
        self._link = WorkerLink(
            sock,
            loop,
            LinkEvents(self._on_begun, self._on_done, self._on_credits, self._on_lost),
            name=terms.gateway,
            segment_bytes=terms.segment_bytes,
            budget_bytes=terms.budget_bytes,
            copying=copying,
        )
        self._stream = FrameStream(max(terms.segment_bytes, terms.budget_bytes))
        self._allowance = Allowance(terms.segment_bytes, terms.budget_bytes)
        self._departures = Departures(self._link, Outbox(), clock.now_ns)
        self._waiting: deque[_Batch] = deque()  # for room in the arena
        self._widths: dict[int, int] = {}  # {servable id: width}
        self._requests: set[asyncio.Task[None]] = set()
        self._greeted = False

    async def greet(self, timeout_s: float) -> None:
        """Pass the worker's hello on. Raises WorkerLost, TimeoutError."""
        self._put(Kind.HELLO, 0, await self._link.hear(timeout_s))

    def goodbye(self, reason: str, *, ended: bool = False) -> None:
        """Ask the gateway to leave once it has all of its answers; `ended`: the worker has, and this is
        how.
        """
        self._put(Kind.GOODBYE, 0, Goodbye(reason, last=ended))

    def take(self) -> bytes | None:
        """Return the next message for the gateway, None where there is nothing to send."""
        return self._departures.take()

    def close(self) -> None:
        """The gateway has gone, or the worker."""
        self._link.close("the gateway has left")
        for task in self._requests:
            task.cancel()

    # From the worker.

    def _put(self, kind: Kind, id_: int, body: Body) -> None:
        self._departures.put(encode(kind, id_, body))
        self.output.set()

    def _on_begun(self, batch: int) -> None:
        self._put(Kind.BEGUN, batch, Begun(batch=True))

    def _on_credits(self, credits: int) -> None:
        self._put(Kind.CREDITS, 0, Credits(credits))

    def _on_done(self, batch: int, done: Done) -> None:
        self._allowance.give_back(batch)
        size_bytes = sum(tensor.size_bytes for tensor in done.outputs)
        try:
            if size_bytes > self._max_output_bytes:
                raise RegionTooLarge(size_bytes, self._max_output_bytes)
            self._departures.answer(batch, done)
        except (ArenaInvalid, RegionTooLarge) as error:
            self._link.free(done.outputs)
            outcome = Outcome.TOO_LARGE if isinstance(error, RegionTooLarge) else Outcome.MODEL_FAILED
            self._put(Kind.DONE, batch, Done(outcome, done.credits, message=str(error)))
        self.output.set()
        self._send_waiting()

    def _on_lost(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        self.output.set()

    # From the gateway.

    def receive(self, message: bytes) -> None:
        """Take what the gateway has sent. Raises ProtocolError."""
        for frame in self._stream.feed(frames_in(message)):
            self._on_frame(frame)

    def _on_frame(self, frame: Received) -> None:
        kind, id_, body, batch, tensors = frame
        if isinstance(batch, Run):
            self._on_run(id_, batch, tensors)
        elif kind == Kind.CANCEL:
            for each in decode(body, Cancel).batches:
                self._cancel(each)
        elif kind == Kind.HELLO:
            decode(body, Hello)
            if not self._greeted:
                self._greeted = True
                self._link.take_part()
        elif kind == Kind.UNLOAD and not id_:
            self._link.forget(self._forgotten(decode(body, Unload)))
        elif kind in _ANSWERS:
            self._ask(Kind(kind), id_, body)
        else:
            raise ProtocolError(f"unknown frame kind {kind}")

    def _on_run(self, id_: int, run: Run, tensors: tuple[list[Buffer], ...]) -> None:
        inputs = [
            BatchInput(tensor.name, tensor.datatype, tensor.shape, tensor.size_bytes, parts)
            for tensor, parts in zip(run.inputs, tensors, strict=True)
        ]
        if id_ in self._allowance:
            raise ProtocolError(f"batch {id_} is in flight already")
        try:
            self._allowance.take(id_, arena_bytes([each.size_bytes for each in inputs]))
        except ArenaFull as error:
            raise ProtocolError("more is in flight than this gateway may have") from error
        except RegionTooLarge as error:
            self._refuse(_Batch(id_, run, inputs), Outcome.TOO_LARGE, str(error))
            return
        self._waiting.append(_Batch(id_, run, inputs))
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what has room in the arena, in order: there is none where pieces of it lie apart."""
        while self._waiting:
            batch = self._waiting[0]
            run = batch.run
            deadline_ns = due_ns(run.deadline_ns, self._clock.now_ns())
            try:
                self._link.run(
                    batch.id, run.servable, run.rows, batch.inputs, run.outputs, deadline_ns, alone=run.alone
                )
            except ArenaFull:
                return
            except RegionTooLarge as error:
                self._refuse(batch, Outcome.TOO_LARGE, str(error))
            self._waiting.popleft()

    def _cancel(self, id_: int) -> None:
        batch = next((each for each in self._waiting if each.id == id_), None)
        if batch is None:
            self._link.cancel(id_)
        else:
            self._waiting.remove(batch)
            self._refuse(batch, Outcome.CANCELLED, "")

    def _refuse(self, batch: _Batch, outcome: Outcome, message: str) -> None:
        """Answer a batch that the worker has never seen, with all of its credits."""
        self._allowance.give_back(batch.id)
        credits = self._widths.get(batch.run.servable, 1)
        self._put(Kind.DONE, batch.id, Done(outcome, credits, message=message))

    def _forgotten(self, unload: Unload) -> int:
        self._widths.pop(unload.servable, None)
        return unload.servable

    def _ask(self, kind: Kind, id_: int, body: bytes) -> None:
        if len(self._requests) >= _MAX_REQUESTS:
            raise ProtocolError(f"more than {_MAX_REQUESTS} requests at once")
        question, answer = _ANSWERS[kind]
        task = self._tasks.create_task(self._answer(kind, id_, decode(body, question), answer))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _answer(self, kind: Kind, id_: int, question: Body, answer: type[Body]) -> None:
        if isinstance(question, Unload):
            self._forgotten(question)
        size_bytes = 0
        try:
            if isinstance(question, Load):
                question = Load(question.servable, await self._sources.resolve(question.spec))
                size_bytes = _size_bytes(question.spec.path)
                self._widths[question.servable] = question.spec.width
            found = await self._link.request(
                kind, question, answer, _REQUEST_TIMEOUT_S, lambda: self._put(Kind.BEGUN, id_, Begun())
            )
        except (FetchFailed, RequestRefused) as error:
            self._put(Kind.FAILED, id_, Failure(str(error), error.retryable))
        except TimeoutError:
            self._put(Kind.FAILED, id_, Failure("the worker takes too long", retryable=True))
        except WorkerLost:
            return  # the stream ends, and says so
        else:
            if isinstance(found, Loaded):  # the gateway has not seen the file, and counts what it takes
                found = msgspec.structs.replace(found, memory_bytes=max(found.memory_bytes, size_bytes))
            self._put(Kind.ANSWER, id_, found)


def _size_bytes(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # loading it will say so
        return 0
