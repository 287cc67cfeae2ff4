"""What grpcio's server does to its handlers, without a server: it cancels them wherever they are."""

from __future__ import annotations

import asyncio

import pytest

from gateway.call import Reply
from gateway.clock import MonotonicClock
from gateway.frontend.grpcio import GrpcioFrontend
from gateway.frontend.listening import Listening
from gateway.frontend.seam import Servicers
from protos import inference_pb2 as pb

LIMIT_S = 10


class StuckContext:
    """A call whose first message is never written to the end."""

    def __init__(self):
        self.writing = asyncio.Event()

    def invocation_metadata(self):
        return ()

    def peer(self):
        return "ipv4:127.0.0.1:1"

    def time_remaining(self):
        return None

    async def write(self, message):
        self.writing.set()
        await asyncio.Event().wait()


@pytest.fixture
async def cancel_during_write():
    async def cancel(handler):
        context = StuckContext()
        task = asyncio.create_task(handler(context))
        async with asyncio.timeout(LIMIT_S):
            await context.writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)  # a burst of cancellations is reported together

    return cancel


@pytest.fixture
async def frontend():
    listening = Listening("127.0.0.1", 0, 1 << 20, 1 << 30)
    return GrpcioFrontend(asyncio.get_running_loop(), MonotonicClock(), Servicers({}, {}), listening)


async def test_servicer_is_closed_at_once_when_its_caller_goes_during_a_write(frontend, cancel_during_write):
    closed = asyncio.Event()

    async def watch(requests):
        try:
            yield b"first"
        finally:
            closed.set()

    await cancel_during_write(lambda context: frontend._stream(watch)(None, context))
    assert closed.is_set()


async def test_requests_of_a_stream_are_cancelled_when_its_caller_goes_during_a_write(
    frontend, cancel_during_write
):
    calls, cancelled = [], []

    def on_calls(burst):
        calls.extend(burst)
        if len(calls) == 2:
            frontend.settle([Reply(calls[0], "m", "1", 1, ())])

    async def requests():
        for _ in range(2):
            yield pb.ModelInferRequest(model_name="m").SerializeToString()

    frontend.start(on_calls, cancelled.extend)
    await cancel_during_write(lambda context: frontend._stream_infer(requests(), context))
    assert cancelled == [calls[1].id]
