from __future__ import annotations

import asyncio

import pytest

from gateway.call import BatchInput
from gateway.workerpool.link import LinkEvents
from gateway.workerpool.questions import RequestRefused, WorkerLost
from gateway.workerpool.remote.frames import FrameStream, behind
from gateway.workerpool.remote.link import RemoteLink
from gateway.workerpool.remote.pieces import Outbox, frames_in
from wire.arena import ArenaFull, ArenaInvalid, RegionTooLarge
from wire.frames import (
    Begun,
    Cancel,
    Credits,
    Done,
    Failure,
    Goodbye,
    Hello,
    Kind,
    Outcome,
    ProtocolError,
    Report,
    TensorAt,
    Unload,
    decode,
    encode,
)


class Far:
    """A link, and its other end in the test's hands."""

    def __init__(self, clock):
        self.events = []
        self.goodbyes = []
        self.outputs = 0
        self.link = RemoteLink(
            asyncio.get_running_loop(),
            clock,
            LinkEvents(
                lambda batch: self.events.append(("begun", batch)),
                lambda batch, done: self.events.append(("done", batch, done)),
                lambda credits: self.events.append(("credits", credits)),
                lambda reason: self.events.append(("lost", reason)),
            ),
            name="g",
            segment_bytes=256,
            budget_bytes=1024,
            max_output_bytes=1000,
            on_output=self._on_output,
            on_goodbye=self.goodbyes.append,
        )
        self._stream = FrameStream(10_000)

    def _on_output(self):
        self.outputs += 1

    def sent(self):
        """Return the frames that have left."""
        frames = []
        while self.link.outbox:
            frames += self._stream.feed(frames_in(self.link.outbox.take()))
        return frames

    def says(self, kind, id_, body, *tensors):
        outbox = Outbox()
        outbox.put(encode(kind, id_, body), *tensors)
        self.link.receive(outbox.take())

    def run(self, batch=1, data=b"data", **options):
        inputs = [BatchInput("x", "UINT8", (len(data),), len(data), [data])]
        self.link.run(batch, 7, 1, inputs, (), options.pop("deadline_ns", 0), **options)

    def answers(self, batch=1, *data):
        tensors = behind([TensorAt(f"y{i}", "UINT8", (len(d),), 0, 0, len(d)) for i, d in enumerate(data)])
        self.says(Kind.DONE, batch, Done(Outcome.OK, 1, tensors), *data)


@pytest.fixture
async def far(clock):
    return Far(clock)


async def test_batch_leaves_with_its_inputs_behind_it(far, clock):
    far.run(batch=5, data=b"hello", deadline_ns=clock.now_ns() + 300, alone=True)
    (frame,) = far.sent()
    assert (frame.kind, frame.id, frame.batch.servable, frame.batch.alone) == (Kind.RUN, 5, 7, True)
    assert frame.batch.deadline_ns == 300
    assert b"".join(frame.tensors[0]) == b"hello"


async def test_outputs_can_be_read_until_they_are_freed(far):
    far.run()
    far.answers(1, b"", b"first", b"second")
    ((_, batch, done),) = far.events
    assert batch == 1
    assert [bytes(far.link.view(tensor)) for tensor in done.outputs] == [b"", b"first", b"second"]
    far.link.free(done.outputs)
    with pytest.raises(ArenaInvalid):
        far.link.view(done.outputs[1])


async def test_outputs_of_two_answers_are_not_mixed_up(far):
    far.run(1)
    far.run(2)
    far.answers(2, b"second")
    far.answers(1, b"first!")
    views = [bytes(far.link.view(done.outputs[0])) for _, _, done in far.events]
    assert views == [b"second", b"first!"]


async def test_room_comes_back_with_the_answer(far):
    far.run(1, bytes(200))
    with pytest.raises(ArenaFull):
        far.run(2, bytes(100))
    assert far.link.arena_used_bytes == 256
    far.answers(1)
    far.run(2, bytes(100))
    with pytest.raises(RegionTooLarge):
        far.run(3, bytes(1025))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.DONE, Done(Outcome.OK, 1)),
        (Kind.RUN, Begun()),
        (Kind.FREE, Begun()),
        (Kind.SEGMENT, Begun()),
        (Kind.DONE, Done(Outcome.OK, 1, (TensorAt("y", "UINT8", (1,), 0, 0, 1001),))),
    ],
    ids=["answer to nothing", "a gateway's frame", "no arena", "no segment", "outputs over the limit"],
)
async def test_breach_of_the_protocol_ends_the_link(far, kind, body):
    far.says(kind, 99, body)
    assert len(far.events) == 1
    assert far.events[0][0] == "lost"
    assert "broke the protocol" in far.events[0][1]


async def test_nothing_is_heard_of_after_the_end(far):
    far.run()
    far.link.close("cut")
    far.answers(1, b"late")
    far.says(Kind.CREDITS, 0, Credits(3))
    far.link.close("again")
    assert far.events == [("lost", "cut")]
    assert far.sent() == []
    with pytest.raises(ArenaFull):
        far.run(2)
    with pytest.raises(WorkerLost):
        await far.link.request(Kind.UNLOAD, Unload(1), Report, 1.0)


async def test_greeting_takes_part_after_the_worker_has_spoken(far):
    greeting = asyncio.ensure_future(far.link.greet(5.0))
    await asyncio.sleep(0)
    assert far.sent() == []
    far.says(Kind.HELLO, 0, Hello(1, 1, "cpu", 3, "cpu", 2))
    assert (await greeting).capacity == 2
    assert [frame.kind for frame in far.sent()] == [Kind.HELLO]


async def test_worker_of_another_protocol_is_refused(far):
    far.says(Kind.HELLO, 0, Hello(90, 91, "cpu", 3))
    with pytest.raises(ProtocolError, match="no common protocol version"):
        await far.link.greet(5.0)


async def test_request_is_answered_or_refused(far):
    asking = [asyncio.ensure_future(far.link.request(Kind.UNLOAD, Unload(i), Report, 5.0)) for i in (1, 2)]
    await asyncio.sleep(0)
    first, second = far.sent()
    far.says(Kind.FAILED, second.id, Failure("no", retryable=True))
    far.says(Kind.ANSWER, first.id, Report(1, 2, {}))
    assert await asking[0] == Report(1, 2, {})
    with pytest.raises(RequestRefused, match="no") as refused:
        await asking[1]
    assert refused.value.retryable


@pytest.mark.parametrize("cut", [True, False])
async def test_only_the_workers_own_end_is_laid_at_a_loads_door(far, cut):
    asking = asyncio.ensure_future(far.link.request(Kind.UNLOAD, Unload(1), Report, 5.0))
    await asyncio.sleep(0)
    (frame,) = far.sent()
    far.says(Kind.BEGUN, frame.id, Begun())
    if cut:
        far.link.close("gone")
    else:
        far.says(Kind.GOODBYE, 0, Goodbye("gone", last=True))
    with pytest.raises(WorkerLost, match="gone") as lost:
        await asking
    assert lost.value.begun is not cut
    assert far.link.way_lost is cut
    assert far.events == [("lost", "gone")]


async def test_goodbye_is_passed_on_and_ends_nothing(far):
    far.says(Kind.GOODBYE, 0, Goodbye("the pool ends"))
    assert far.goodbyes == ["the pool ends"]
    assert far.events == []


async def test_drained_link_takes_no_batches_and_answers_those_it_has(far):
    far.run(1)
    far.link.drain()
    assert far.link.busy
    with pytest.raises(ArenaFull):
        far.run(2)
    far.answers(1)
    assert not far.link.busy
    assert far.events[0][:2] == ("done", 1)


async def test_small_words_go_out(far):
    far.link.cancel(4)
    far.link.forget(7)
    cancel, forget = far.sent()
    assert decode(cancel.body, Cancel) == Cancel((4,))
    assert (forget.kind, forget.id, decode(forget.body, Unload)) == (Kind.UNLOAD, 0, Unload(7))
    far.says(Kind.BEGUN, 4, Begun(batch=True))
    far.says(Kind.CREDITS, 0, Credits(2))
    assert far.events == [("begun", 4), ("credits", 2)]
    assert far.outputs == 2
