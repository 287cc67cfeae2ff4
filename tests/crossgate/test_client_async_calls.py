import asyncio
import contextlib
import doctest

import grpc
import numpy as np
import pytest
from grpc import StatusCode

import crossgate.aio
from crossgate import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Exhausted,
    InferRequest,
    InferResult,
    ModelFailed,
    NotFound,
    NotOffered,
    RequestFailed,
    Unavailable,
)

X = {"x": np.array([[1.5, 2.0]], np.float32)}


@pytest.fixture
async def connect(time_):
    """A client on fake time; real deadlines still run in gRPC."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*servers, **options):
            options = {"clock": time_.clock, "sleep": time_.sleep_async, "random": lambda: 0.0} | options
            targets = [getattr(server, "address", server) for server in servers]
            return await stack.enter_async_context(AsyncClient(targets, **options))

        yield start


async def test_an_inference_comes_back_as_arrays(serve, connect):
    server = serve()
    client = await connect(server, metadata={"x-a": "1"})
    result = await client.infer("double", X, timeout_s=5, metadata={"x-b": "2"}, request_id="r-1", priority=1)
    assert result["y"].tolist() == [[3, 4]]
    assert (result.id, result.revision) == ("r-1", 42)
    (seen,) = server.seen
    assert (seen.metadata["x-a"], seen.metadata["x-b"]) == ("1", "2")
    assert 4 < seen.remaining_s <= 5


def test_the_docstring_example_works(serve):
    server = serve()
    globs = {"AsyncClient": lambda _: AsyncClient(server.address), "asyncio": asyncio}
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(AsyncClient, "AsyncClient", module=crossgate.aio, globs=globs)
    outcome = doctest.DocTestRunner().run(example)
    assert outcome.attempted == 2
    assert outcome.failed == 0


async def test_gateways_serve_in_turn(serve, connect):
    servers = [serve(), serve()]
    client = await connect(*servers)
    await asyncio.gather(*(client.infer("double", X) for _ in range(6)))
    assert [len(server.seen) for server in servers] == [3, 3]


async def test_an_unavailable_gateway_is_passed_over_at_once(serve, connect, time_, fail, dead_address):
    failing, server = serve(fail(StatusCode.UNAVAILABLE)), serve()
    client = await connect(dead_address, failing, server)
    assert (await client.infer("double", X))["y"].tolist() == [[3, 4]]
    assert [len(failing.seen), len(server.seen)] == [1, 1]
    assert time_.slept_s == [0.0, 0.0]


async def test_pushback_is_waited_out(serve, connect, time_, pushback):
    client = await connect(serve(pushback(250)))
    assert (await client.infer("double", X))["y"].tolist() == [[3, 4]]
    assert time_.slept_s == [0.25]


async def test_one_deadline_covers_all_attempts_and_no_wait_passes_it(serve, connect, time_, pushback):
    server = serve(*[pushback(4000)] * 5)
    client = await connect(server, retries=4)
    with pytest.raises(Exhausted) as caught:
        await client.infer("double", X, timeout_s=10)
    assert time_.slept_s == [4, 4]
    assert [round(seen.remaining_s) for seen in server.seen] == [10, 6, 2]
    assert ("grpc-retry-pushback-ms", "4000") in caught.value.trailing_metadata


async def test_the_deadline_ends_a_call(serve, connect, hold):
    client = await connect(serve(hold), timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        await client.infer("double", X)


async def test_cancelling_a_task_cancels_its_call_and_nothing_else(serve, connect, hold):
    server = serve(hold)
    client = await connect(server)
    call = asyncio.create_task(client.infer("double", X))
    assert await asyncio.to_thread(server.held.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(server.given_up.wait, 10)
    assert (await client.infer("double", X))["y"].tolist() == [[3, 4]]


async def test_a_servers_cancellation_is_an_error_not_a_cancellation(serve, connect, fail):
    client = await connect(serve(fail(StatusCode.CANCELLED)))
    with pytest.raises(Cancelled):
        await client.infer("double", X)


async def test_closing_fails_calls_under_way_without_cancelling_their_tasks(serve, hold):
    server = serve(hold)
    client = AsyncClient(server.address)
    call = asyncio.create_task(client.infer("double", X))
    assert await asyncio.to_thread(server.held.wait, 10)
    await client.close()
    with pytest.raises(Cancelled, match="closed"):
        await call
    with pytest.raises(RuntimeError, match="closed"):
        await client.infer("double", X)
    with pytest.raises(RuntimeError, match="closed"):
        await anext(client.stream([]))
    await client.close()


async def test_a_client_without_a_call_needs_no_loop_to_be_made(serve):
    server = serve()
    client = await asyncio.to_thread(AsyncClient, server.address)
    async with client:
        assert await client.server_live() is True


async def test_the_other_methods_answer_as_the_blocking_clients_do(serve, connect):
    server = serve()
    client = await connect(server)
    with Client(server.address) as blocking:
        assert await client.server_ready() == blocking.server_ready()
        assert await client.model_ready("double", "9") == blocking.model_ready("double", "9")
        assert await client.server_metadata() == blocking.server_metadata()
        assert await client.model_metadata("double") == blocking.model_metadata("double")
        assert await client.models(ready=True) == blocking.models(ready=True)
        assert await client.statistics("double") == blocking.statistics("double")
    with pytest.raises(NotFound):
        await client.model_ready("triple")
    with pytest.raises(NotOffered):
        await client.model_config("double")


async def requests_of(*models):
    for model in models:
        yield InferRequest(model, X, request_id=model)


def listed_requests_of(*models):
    return [InferRequest(model, X, request_id=model) for model in models]


@pytest.mark.parametrize("make", [requests_of, listed_requests_of])
async def test_a_stream_goes_on_after_a_failed_request(serve, connect, make):
    client = await connect(serve())
    first, second, third = [item async for item in client.stream(make("double", "triple", "double"))]
    assert isinstance(first, InferResult)
    assert isinstance(third, InferResult)
    assert isinstance(second, RequestFailed)
    assert (second.id, second.details) == ("triple", "no model 'triple'")


async def test_what_ends_a_stream_is_raised(serve, connect):
    client = await connect(serve())
    stream = client.stream(requests_of("double", "fatal"))
    assert isinstance(await anext(stream), InferResult)
    with pytest.raises(ModelFailed, match="the stream broke"):
        await anext(stream)


async def test_an_unreachable_gateway_ends_a_stream_and_rests(serve, connect, dead_address):
    client = await connect(dead_address, serve())
    with pytest.raises(Unavailable):
        await anext(client.stream(requests_of("double")))
    for _ in range(2):
        assert isinstance(await anext(client.stream(requests_of("double"))), InferResult)


async def test_a_wrong_request_of_a_stream_is_raised_to_its_reader(serve, connect):
    client = await connect(serve())
    with pytest.raises(TypeError, match="'image'"):
        await anext(client.stream([InferRequest("double", {"image": None})]))


async def test_closing_a_stream_cancels_it_at_the_server(serve, connect):
    server = serve()
    client = await connect(server)
    never = asyncio.Event()

    async def requests():
        yield InferRequest("double", X)
        await never.wait()

    async with contextlib.aclosing(client.stream(requests())) as stream:
        await anext(stream)
        assert not server.given_up.is_set()
    assert await asyncio.to_thread(server.given_up.wait, 10)


async def test_cancelling_the_reader_of_a_stream_cancels_it_at_the_server(serve, connect):
    server = serve()
    client = await connect(server)
    answered, never = asyncio.Event(), asyncio.Event()

    async def requests():
        yield InferRequest("double", X)
        await never.wait()

    async def read():
        async for _ in client.stream(requests()):
            answered.set()

    reader = asyncio.create_task(read())
    await answered.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await asyncio.to_thread(server.given_up.wait, 10)


async def test_credentials_make_the_channel_secure(serve, connect):
    local = grpc.LocalConnectionType.LOCAL_TCP
    server = serve(credentials=grpc.local_server_credentials(local))
    client = await connect(server, credentials=grpc.local_channel_credentials(local))
    assert (await client.infer("double", X))["y"].tolist() == [[3, 4]]


async def test_closing_the_client_ends_its_streams(serve):
    server = serve()
    client = AsyncClient(server.address)
    never = asyncio.Event()

    async def requests():
        yield InferRequest("double", X)
        await never.wait()

    stream = client.stream(requests())
    await anext(stream)
    await client.close()
    with pytest.raises(Cancelled, match="closed"):
        await anext(stream)
