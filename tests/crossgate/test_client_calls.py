import contextlib
import doctest
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from grpc import StatusCode

import crossgate.client
from crossgate import (
    Cancelled,
    Client,
    CrossgateError,
    DeadlineExceeded,
    Exhausted,
    InferRequest,
    InferResult,
    InvalidRequest,
    MalformedResponse,
    ModelFailed,
    ModelIndex,
    NotFound,
    NotOffered,
    RequestFailed,
    TensorMetadata,
    Unavailable,
)
from protos import inference_pb2 as pb

X = {"x": np.array([[1.5, 2.0]], np.float32)}


@pytest.fixture
def connect(time_):
    """A client on fake time; real deadlines still run in gRPC."""
    with contextlib.ExitStack() as stack:

        def start(*servers, **options):
            options = {"clock": time_.clock, "sleep": time_.sleep, "random": lambda: 0.0} | options
            targets = [getattr(server, "address", server) for server in servers]
            return stack.enter_context(Client(targets, **options))

        yield start


def test_an_inference_comes_back_as_arrays(serve, connect):
    server = serve()
    result = connect(server, metadata={"authorization": "Bearer t"}).infer(
        "double",
        X,
        version="7",
        outputs=["y"],
        timeout_s=5,
        metadata={"x-user": "ann"},
        request_id="r-1",
        parameters={"trace": True},
        priority=2,
    )
    np.testing.assert_array_equal(result["y"], np.array([[3, 4]], np.float32))
    assert (result.model, result.version, result.id, result.revision) == ("double", "7", "r-1", 42)
    assert result.parameters == {"batch_size": 1}
    (seen,) = server.seen
    assert seen.request == InferRequest("double", X, "7", ["y"], "r-1", {"trace": True}, 2).to_message()
    assert seen.metadata["authorization"] == "Bearer t"
    assert seen.metadata["x-user"] == "ann"
    assert 4 < seen.remaining_s <= 5


def test_the_docstring_example_works(serve):
    servers = [serve(), serve()]

    def client(targets):
        assert targets == ["gateway-a:8001", "gateway-b:8001"]
        return Client([server.address for server in servers])

    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(Client, "Client", module=crossgate.client, globs={"Client": client, "np": np})
    outcome = doctest.DocTestRunner().run(example)
    assert outcome.attempted == 3
    assert outcome.failed == 0


def test_gateways_serve_in_turn(serve, connect):
    servers = [serve(), serve()]
    client = connect(*servers)
    for _ in range(6):
        client.infer("double", X)
    assert [len(server.seen) for server in servers] == [3, 3]


def test_an_unavailable_gateway_is_passed_over_at_once(serve, connect, time_, fail):
    first, second = serve(fail(StatusCode.UNAVAILABLE)), serve()
    assert connect(first, second).infer("double", X)["y"].tolist() == [[3, 4]]
    assert [len(first.seen), len(second.seen)] == [1, 1]
    assert time_.slept_s == [0.0]


def test_a_dead_gateway_costs_no_request(serve, connect, dead_address):
    server = serve()
    client = connect(dead_address, server)
    for _ in range(4):
        assert client.infer("double", X)["y"].tolist() == [[3, 4]]
    assert len(server.seen) == 4


def test_an_unavailable_only_gateway_is_tried_again_with_growing_pauses(serve, connect, time_, fail):
    server = serve(*[fail(StatusCode.UNAVAILABLE, "loading")] * 3)
    with pytest.raises(Unavailable, match="loading") as caught:
        connect(server).infer("double", X)
    assert len(server.seen) == 3
    assert time_.slept_s == pytest.approx([0.025, 0.05])
    assert len(caught.value.__notes__) == 2
    assert caught.value.endpoint == server.address


def test_no_retries_means_one_attempt(serve, connect, fail):
    server = serve(fail(StatusCode.UNAVAILABLE))
    with pytest.raises(Unavailable):
        connect(server, retries=0).infer("double", X)
    assert len(server.seen) == 1


def test_pushback_is_waited_out(serve, connect, time_, pushback):
    server = serve(pushback(250))
    assert connect(server).infer("double", X)["y"].tolist() == [[3, 4]]
    assert time_.slept_s == [0.25]


@pytest.mark.parametrize("ms", [-1, "later"])
def test_pushback_may_forbid_a_retry(serve, connect, time_, pushback, ms):
    server = serve(pushback(ms))
    with pytest.raises(Exhausted):
        connect(server).infer("double", X)
    assert len(server.seen) == 1
    assert time_.slept_s == []


def test_one_deadline_covers_all_attempts_and_no_wait_passes_it(serve, connect, time_, pushback):
    server = serve(*[pushback(4000)] * 5)
    with pytest.raises(Exhausted):
        connect(server, retries=4).infer("double", X, timeout_s=10)
    assert time_.slept_s == [4, 4]
    assert [round(seen.remaining_s) for seen in server.seen] == [10, 6, 2]


def test_the_deadline_ends_a_call_at_both_ends(serve, connect, hold):
    server = serve(hold)
    with pytest.raises(DeadlineExceeded):
        connect(server, timeout_s=0.05).infer("double", X)
    assert server.given_up.wait(10)


def test_a_spent_deadline_sends_nothing(serve, connect):
    server = serve()
    with pytest.raises(DeadlineExceeded):
        connect(server).infer("double", X, timeout_s=-1)
    assert server.seen == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (StatusCode.NOT_FOUND, NotFound),
        (StatusCode.INTERNAL, ModelFailed),
        (StatusCode.ABORTED, CrossgateError),
        (StatusCode.CANCELLED, Cancelled),
        (StatusCode.RESOURCE_EXHAUSTED, Exhausted),
    ],
)
def test_a_status_raises_its_error_after_one_attempt(serve, connect, fail, code, error):
    server = serve(fail(code, "because", (("x-hint", "1"),)))
    with pytest.raises(error) as caught:
        connect(server).infer("double", X)
    assert (caught.value.code, caught.value.details) == (code, "because")
    assert ("x-hint", "1") in caught.value.trailing_metadata
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert len(server.seen) == 1


def test_a_malformed_answer_is_no_result(serve, connect, answer):
    message = pb.ModelInferResponse(raw_output_contents=[b""])
    with pytest.raises(MalformedResponse):
        connect(serve(answer(message))).infer("double", X)


def test_a_wrong_argument_sends_nothing(serve, connect):
    server = serve()
    client = connect(server)
    with pytest.raises(ValueError, match="'image'"):
        client.infer("double", {"image": [[1], [1, 2]]})
    with pytest.raises(TypeError, match="metadata"):
        client.infer("double", X, metadata={"a": 1})
    with pytest.raises(ValueError, match="timeout_s"):
        client.infer("double", X, timeout_s=float("nan"))
    assert server.seen == []


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"max_message_bytes": 0}, {"timeout_s": float("nan")}, {"metadata": {"a": 1}}],
)
def test_a_client_refuses_wrong_options(options):
    with pytest.raises((TypeError, ValueError)):
        Client("127.0.0.1:1", **options)


def test_a_message_over_the_limit_is_refused_in_both_directions(serve, connect, answer):
    with pytest.raises(Exhausted):
        connect(serve(), max_message_bytes=1000).infer("double", {"x": np.zeros(1000)})
    large = pb.ModelInferResponse(id="x" * 2000)
    with pytest.raises(Exhausted):
        connect(serve(answer(large)), max_message_bytes=1000).infer("double", X)


def test_an_answer_over_grpcs_own_limit_is_taken(serve, connect, answer):
    large = pb.ModelInferResponse(id="x" * 5_000_000)
    assert len(connect(serve(answer(large))).infer("double", X).id) == 5_000_000


def test_credentials_make_the_channel_secure(serve, connect):
    local = grpc.LocalConnectionType.LOCAL_TCP
    server = serve(credentials=grpc.local_server_credentials(local))
    client = connect(server, credentials=grpc.local_channel_credentials(local))
    assert client.infer("double", X)["y"].tolist() == [[3, 4]]


def test_the_other_methods_answer_in_plain_objects(serve, connect):
    client = connect(serve())
    assert client.server_live() is True
    assert client.server_ready() is False
    assert client.model_ready("double") is True
    assert client.model_ready("double", "9") is False
    with pytest.raises(NotFound, match="there is double"):
        client.model_ready("triple")
    server = client.server_metadata()
    assert (server.name, server.version, server.extensions) == ("scripted", "3", ("statistics",))
    model = client.model_metadata("double")
    assert (model.name, model.versions, model.platform) == ("double", ("1", "2"), "onnx_onnxv1")
    assert model.inputs == (TensorMetadata("x", "FP32", (-1, 2)),)
    assert model.outputs == (TensorMetadata("y", "FP32", (-1, 2)),)
    ready = ModelIndex("double", "1", "READY", "")
    assert client.models() == (ready, ModelIndex("double", "2", "LOADING", "warm-up"))
    assert client.models(ready=True) == (ready,)
    assert [entry.inference_count for entry in client.statistics("double")] == [7]
    with pytest.raises(NotOffered):
        client.model_config("double")


def test_a_stream_goes_on_after_a_failed_request(serve, connect):
    client = connect(serve())
    requests = [InferRequest(model, X, request_id=model) for model in ("double", "triple", "double")]
    first, second, third = client.stream(requests)
    assert isinstance(first, InferResult)
    assert isinstance(third, InferResult)
    assert third["y"].tolist() == [[3, 4]]
    assert isinstance(second, RequestFailed)
    assert (second.id, second.details) == ("triple", "no model 'triple'")


def test_what_ends_a_stream_is_raised(serve, connect):
    stream = connect(serve()).stream([InferRequest("double", X), InferRequest("fatal", X)])
    assert isinstance(next(stream), InferResult)
    with pytest.raises(ModelFailed, match="the stream broke"):
        next(stream)


def test_an_unreachable_gateway_ends_a_stream_and_rests(serve, connect, dead_address):
    client = connect(dead_address, serve())
    with pytest.raises(Unavailable):
        list(client.stream([InferRequest("double", X)]))
    for _ in range(2):
        assert len(list(client.stream([InferRequest("double", X)]))) == 1


def test_a_wrong_request_of_a_stream_is_raised_to_its_reader(serve, connect):
    stream = connect(serve()).stream([InferRequest("double", {"image": None})])
    with pytest.raises(TypeError, match="'image'"):
        list(stream)


def test_closing_a_stream_cancels_it_at_the_server(serve, connect):
    server = serve()
    more = threading.Event()

    def requests():
        yield InferRequest("double", X)
        more.wait(30)

    with contextlib.closing(connect(server).stream(requests())) as stream:
        next(stream)
        assert not server.given_up.is_set()
    assert server.given_up.wait(10)
    more.set()


def test_leaving_the_context_closes_the_channels(serve):
    server = serve()
    with Client(server.address) as client:
        client.infer("double", X)
    with pytest.raises(RuntimeError, match="closed"):
        client.infer("double", X)
    with pytest.raises(RuntimeError, match="closed"):
        next(client.stream([]))
    client.close()
    assert len(server.seen) == 1


def test_closing_cancels_calls_of_other_threads(serve, hold):
    server = serve(hold)
    client = Client(server.address)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.infer, "double", X)
        assert server.held.wait(10)
        client.close()
        with pytest.raises(Cancelled):
            call.result(10)


def test_threads_share_a_client(serve, connect):
    client = connect(serve(), serve())

    def double(n):
        return client.infer("double", {"x": [n]})["y"].tolist()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(double, range(64))) == [[2 * n] for n in range(64)]
