"""A bridge between a stream in the test's hands and a worker that is only a socket and an arena."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.clock import MonotonicClock
from gateway.poolserver.bridge import Bridge
from gateway.workerpool.copying import Copying
from gateway.workerpool.remote.frames import FrameStream, behind
from gateway.workerpool.remote.pieces import Outbox, frames_in
from gateway.workerpool.remote.terms import Terms
from registry.fetching import FetchFailed
from wire.arena import ArenaReader, ArenaWriter
from wire.frames import (
    Begun,
    Cancel,
    Credits,
    Done,
    Failure,
    FrameReader,
    Freed,
    Hello,
    Kind,
    Load,
    Loaded,
    Outcome,
    ProtocolError,
    Run,
    SegmentOpened,
    ServableSpec,
    Signature,
    TensorAt,
    Unload,
    decode,
    encode,
)
from wire.sockets import receive

SEGMENT_BYTES, BUDGET_BYTES = 4096, 16 << 10
LIMIT_S = 10.0


class FakeSources:
    def __init__(self):
        self.failure = None

    async def resolve(self, spec):
        if self.failure is not None:
            raise self.failure
        return ServableSpec(**{**{f: getattr(spec, f) for f in spec.__struct_fields__}, "path": "/here"})


class FakeWorker:
    """The worker's end of a link: frames, and the arenas of both directions."""

    def __init__(self, sock):
        self.socket = sock
        self.frames = FrameReader()
        self.reader = ArenaReader(1 << 20)
        self.writer = ArenaWriter(SEGMENT_BYTES, BUDGET_BYTES)
        self.waiting = []

    async def next(self, kind):
        """Return the next frame of a kind."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for i, frame in enumerate(self.waiting):
                    if frame.kind == kind:
                        return self.waiting.pop(i)
                try:
                    data, descriptors = receive(self.socket)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                assert data, "the bridge has closed the link"
                for frame in self.frames.feed(data, descriptors):
                    if frame.kind == Kind.SEGMENT:
                        opened = decode(frame.body, SegmentOpened)
                        self.reader.attach(opened.segment, opened.size_bytes, frame.descriptors.pop())
                    else:
                        self.waiting.append(frame)

    async def run(self):
        frame = await self.next(Kind.RUN)
        run = decode(frame.body, Run)
        return frame.id, run, [bytes(self.reader.view(t.segment, t.offset, t.size_bytes)) for t in run.inputs]

    def says(self, kind, id_, body, descriptors=()):
        data = encode(kind, id_, body, descriptors=len(descriptors))
        socket.send_fds(self.socket, [data], list(descriptors))

    def answers(self, batch, *outputs, outcome=Outcome.OK):
        tensors = []
        for i, data in enumerate(outputs):
            region = self.writer.allocate(len(data))
            for segment, size_bytes, fd in self.writer.opened:
                self.says(Kind.SEGMENT, 0, SegmentOpened(segment, size_bytes), [fd])
            self.writer.opened.clear()
            self.writer.view(region)[: len(data)] = data
            at = TensorAt(f"y{i}", "UINT8", (len(data),), region.segment, region.offset, len(data))
            tensors.append(at)
        self.says(Kind.DONE, batch, Done(outcome, 1, tuple(tensors)))

    def close(self):
        self.reader.close()
        self.writer.close()
        self.socket.close()


class Scene:
    """`gateway` speaks and hears at the one end of the bridge, `worker` at the other."""

    def __init__(self, bridge, worker, sources):
        self.bridge = bridge
        self.worker = worker
        self.sources = sources
        self._stream = FrameStream(1 << 20)
        self._heard = []

    def says(self, kind, id_, body, *tensors):
        outbox = Outbox()
        outbox.put(encode(kind, id_, body), *tensors)
        while outbox:
            self.bridge.receive(outbox.take())

    def run(self, batch, *inputs, servable=7, deadline_ns=0):
        tensors = [TensorAt(f"x{i}", "UINT8", (len(d),), 0, 0, len(d)) for i, d in enumerate(inputs)]
        self.says(Kind.RUN, batch, Run(servable, 1, behind(tensors), (), deadline_ns), *inputs)

    async def load(self, width=1, path="file:///somewhere"):
        spec = ServableSpec("m", "1", path, "loopback", "cpu", 1, width)
        self.says(Kind.LOAD, 5, Load(7, spec))
        frame = await self.worker.next(Kind.LOAD)
        self.worker.says(Kind.ANSWER, frame.id, Loaded(Signature((), ()), 1, 2))
        await self.hears(Kind.ANSWER)
        return decode(frame.body, Load).spec

    async def hears(self, kind):
        """Return the next frame of a kind that the gateway gets."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for i, frame in enumerate(self._heard):
                    if frame.kind == kind:
                        return self._heard.pop(i)
                message = self.bridge.take()
                if message is None:
                    self.bridge.output.clear()
                    await self.bridge.output.wait()
                else:
                    self._heard += self._stream.feed(frames_in(message))


@pytest.fixture
async def scene():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    worker, sources, copying = FakeWorker(theirs), FakeSources(), Copying(loop)
    async with asyncio.TaskGroup() as tasks:
        terms = Terms("g", SEGMENT_BYTES, BUDGET_BYTES)
        bridge = Bridge(ours, terms, 8192, sources, MonotonicClock(), copying, tasks)
        try:
            yield Scene(bridge, worker, sources)
        finally:
            bridge.close()
            worker.close()
            copying.close()


async def test_worker_grants_credits_only_to_a_gateway_that_has_greeted(scene):
    scene.worker.says(Kind.HELLO, 0, Hello(1, 1, "cpu", 3, "cpu", 2))
    await scene.bridge.greet(LIMIT_S)
    assert decode((await scene.hears(Kind.HELLO)).body, Hello).capacity == 2
    scene.says(Kind.HELLO, 0, Hello(1, 1, "g", 4))
    scene.says(Kind.HELLO, 0, Hello(1, 1, "g", 4))
    assert decode((await scene.worker.next(Kind.HELLO)).body, Hello).name == "g"
    scene.worker.says(Kind.CREDITS, 0, Credits(4))
    assert decode((await scene.hears(Kind.CREDITS)).body, Credits) == Credits(4)


async def test_inputs_reach_the_arena_and_outputs_come_back(scene):
    scene.run(1, b"first", b"", b"second")
    batch, run, inputs = await scene.worker.run()
    assert (batch, run.servable, inputs) == (1, 7, [b"first", b"", b"second"])
    scene.worker.says(Kind.BEGUN, 1, Begun(batch=True))
    scene.worker.answers(1, b"out", b"puts")
    assert decode((await scene.hears(Kind.BEGUN)).body, Begun).batch
    done = await scene.hears(Kind.DONE)
    assert [b"".join(parts) for parts in done.tensors] == [b"out", b"puts"]


async def test_outputs_are_freed_once_they_have_left(scene):
    for batch in range(3):  # the link says so with the next batch
        scene.run(batch + 1, b"x")
        await scene.worker.run()
        scene.worker.answers(batch + 1, b"y")
        await scene.hears(Kind.DONE)
    freed = decode((await scene.worker.next(Kind.FREE)).body, Freed).regions
    assert freed


async def test_answers_that_wait_do_not_fill_the_worker(scene):
    """More outputs than the arena holds, none of which the gateway takes."""
    for batch in range(1, 9):
        scene.run(batch, b"x")
        await scene.worker.run()
        scene.worker.answers(batch, bytes([batch]) * 1000)
        if batch > 1:
            for segment, offset in decode((await scene.worker.next(Kind.FREE)).body, Freed).regions:
                scene.worker.writer.free(segment, offset)
    for batch in range(1, 9):
        done = await scene.hears(Kind.DONE)
        assert (done.id, b"".join(done.tensors[0])) == (batch, bytes([batch]) * 1000)


async def test_remaining_time_becomes_a_deadline_here(scene):
    before_ns = MonotonicClock().now_ns()
    scene.run(1, b"x", deadline_ns=1_000_000_000)
    _, run, _ = await scene.worker.run()
    assert before_ns + 1_000_000_000 <= run.deadline_ns <= MonotonicClock().now_ns() + 1_000_000_000


async def test_batch_without_room_waits_for_it_in_order(scene):
    # what is free lies in two pieces, neither of which is large enough for the third
    scene.run(1, bytes(1500))
    scene.run(2, bytes(1500))
    await scene.worker.run()
    await scene.worker.run()
    scene.worker.answers(1)
    await scene.hears(Kind.DONE)
    scene.run(3, bytes(2400))
    scene.run(4, b"small")
    scene.worker.answers(2)
    assert [(await scene.worker.run())[0] for _ in (3, 4)] == [3, 4]


async def test_batch_that_waits_here_is_cancelled_here(scene):
    await scene.load(width=2)
    scene.run(1, bytes(1500))
    scene.run(2, bytes(1500))
    await scene.worker.run()
    await scene.worker.run()
    scene.worker.answers(1)
    await scene.hears(Kind.DONE)
    scene.run(3, bytes(2400))
    scene.says(Kind.CANCEL, 0, Cancel((3, 2)))
    done = decode((await scene.hears(Kind.DONE)).body, Done)
    assert (done.outcome, done.credits) == (Outcome.CANCELLED, 2)
    assert decode((await scene.worker.next(Kind.CANCEL)).body, Cancel) == Cancel((2,))


async def test_batch_over_the_limit_is_answered_with_its_credits(scene):
    await scene.load(width=2)
    scene.run(1, bytes(6000), bytes(6000), bytes(4384))  # aligned it is more
    done = decode((await scene.hears(Kind.DONE)).body, Done)
    assert (done.outcome, done.credits) == (Outcome.TOO_LARGE, 2)


async def test_outputs_over_the_gateways_limit_are_not_sent(scene):
    scene.run(1, b"x")
    await scene.worker.run()
    scene.worker.answers(1, bytes(8193))
    done = decode((await scene.hears(Kind.DONE)).body, Done)
    assert (done.outcome, done.credits, done.outputs) == (Outcome.TOO_LARGE, 1, ())


async def test_load_reaches_the_worker_with_a_path_of_this_machine(scene):
    assert (await scene.load()).path == "/here"


async def test_source_that_cannot_be_had_refuses_the_load(scene):
    scene.sources.failure = FetchFailed("no such file", retryable=True)
    scene.says(Kind.LOAD, 5, Load(7, ServableSpec("m", "1", "file:///x", "loopback", "cpu", 1, 1)))
    frame = await scene.hears(Kind.FAILED)
    assert (frame.id, decode(frame.body, Failure)) == (5, Failure("no such file", retryable=True))


async def test_requests_are_answered_under_the_gateways_ids(scene):
    scene.says(Kind.UNLOAD, 40, Unload(1))
    scene.says(Kind.UNLOAD, 41, Unload(2))
    frames = [await scene.worker.next(Kind.UNLOAD) for _ in range(2)]
    scene.worker.says(Kind.BEGUN, frames[1].id, Begun())
    scene.worker.says(Kind.FAILED, frames[1].id, Failure("no"))
    assert (await scene.hears(Kind.BEGUN)).id == 41
    assert (await scene.hears(Kind.FAILED)).id == 41


async def test_servable_is_forgotten_without_an_answer(scene):
    scene.says(Kind.UNLOAD, 0, Unload(7))
    assert (await scene.worker.next(Kind.UNLOAD)).id == 0


async def test_lost_worker_is_known_and_what_it_answered_still_leaves(scene):
    scene.run(1, b"x")
    await scene.worker.run()
    scene.worker.answers(1, b"last")
    scene.worker.close()
    async with asyncio.timeout(LIMIT_S):
        reason = await scene.bridge.lost
    assert reason == "the worker closed the connection"
    done = await scene.hears(Kind.DONE)
    assert b"".join(done.tensors[0]) == b"last"


@pytest.mark.parametrize("kind", [Kind.SEGMENT, Kind.FREE, Kind.DONE, Kind.GOODBYE])
async def test_frame_that_no_gateway_sends_is_a_breach(scene, kind):
    with pytest.raises(ProtocolError):
        scene.says(kind, 1, Done(Outcome.OK, 1) if kind == Kind.DONE else Begun())


async def test_more_than_may_be_in_flight_is_a_breach(scene):
    scene.run(1, bytes(4000))
    with pytest.raises(ProtocolError, match="more is in flight"):
        scene.run(2, bytes(200))


async def test_batch_of_a_number_in_use_is_a_breach(scene):
    scene.run(1, b"x")
    with pytest.raises(ProtocolError, match="in flight already"):
        scene.run(1, b"x")


async def test_more_requests_than_anybody_needs_are_a_breach(scene):
    for i in range(256):
        scene.says(Kind.UNLOAD, i + 1, Unload(i))
    with pytest.raises(ProtocolError, match="requests at once"):
        scene.says(Kind.UNLOAD, 300, Unload(300))
