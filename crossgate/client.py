"""The blocking client."""

from __future__ import annotations

import random as _random
import time
from typing import TYPE_CHECKING, TypeVar

import grpc

from crossgate import operations
from crossgate.channel import MAX_MESSAGE_BYTES, channel_options
from crossgate.endpoints import Endpoints
from crossgate.errors import Unavailable, error_of
from crossgate.feed import RequestFeed, stream_item
from crossgate.headers import read_trailers
from crossgate.plan import CallPlan, Clock, Metadata, Random
from crossgate.request import InferRequest
from crossgate.retry import RetryPolicy
from protos.inference_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from types import TracebackType

    from crossgate.descriptions import ModelIndex, ModelMetadata, ServerMetadata
    from crossgate.errors import RequestFailed
    from crossgate.operations import Operation
    from crossgate.parameters import Parameter
    from crossgate.result import InferResult
    from protos import inference_pb2 as pb
    from protos import model_config_pb2

T = TypeVar("T")


class Client:
    """Calls one gateway, or several in turn; safe to share between threads.

    >>> with Client(["gateway-a:8001", "gateway-b:8001"]) as client:
    ...     result = client.infer("double", {"x": np.array([[1.5, 2.0]], dtype=np.float32)})
    >>> result["y"]
    array([[3., 4.]], dtype=float32)
    >>> result.version
    '1'

    Every call has one deadline, `timeout_s` seconds from its start, which covers all attempts and waits; the
    client's is the default, and None there means none. `metadata` goes with every call, and a call's own is
    added to it.

    A call is tried again at most `retries` times: on UNAVAILABLE, at once at a gateway not tried yet and
    otherwise after a growing pause, and on RESOURCE_EXHAUSTED when the server says after how long. The model
    may then have run for an attempt whose answer was lost; give `retries=0` where that matters. Streams are
    never retried.

    An endpoint is `host:port`, or `unix:/path` for a socket. `credentials` are those of `tls_credentials`, or
    any of gRPC's for channels; None is plain text. Messages over `max_message_bytes`, sent
    or received, fail with `Exhausted`. `clock`, `random` and `sleep` are for tests.

    Failed calls raise `CrossgateError`; a wrong argument raises TypeError or ValueError before anything is
    sent, and a closed client RuntimeError.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        timeout_s: float | None = 60.0,
        metadata: Metadata | None = None,
        retries: int = 2,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        clock: Clock = time.monotonic,
        random: Random = _random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        policy = RetryPolicy(max_attempts=retries + 1)
        self._plan = CallPlan(Endpoints(endpoints), policy, timeout_s, metadata, clock, random)
        self._sleep = sleep
        self._closed = False
        self._channels = [
            _open(target, credentials, max_message_bytes) for target in self._plan.endpoints.targets
        ]
        self._stubs = [GRPCInferenceServiceStub(channel) for channel in self._channels]

    def infer(
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
        request_id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        priority: int | None = None,
    ) -> InferResult:
        """One inference; the arguments other than `timeout_s` and `metadata` are those of `InferRequest`."""
        request = InferRequest(model, inputs, version, outputs, request_id, parameters, priority)
        return self._call(operations.infer(request), timeout_s, metadata)

    def stream(
        self,
        requests: Iterable[InferRequest],
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Generator[InferResult | RequestFailed, None, None]:
        """Send requests as the server takes them and yield its answers as they come.

        A request that fails alone yields a `RequestFailed` and the stream goes on; what ends the whole stream
        is raised. All requests go to one gateway. There is no deadline unless `timeout_s` gives one to the
        whole stream. Nothing is sent before the first answer is asked for; closing the generator cancels the
        call. `requests` is iterated in another thread, and what it raises is raised here.
        """
        self._check_open()
        headers = self._plan.headers(metadata)
        endpoint = self._plan.endpoints.choose(self._plan.clock())
        target = self._plan.endpoints.targets[endpoint]
        feed = RequestFeed()
        call = self._stubs[endpoint].ModelStreamInfer(
            feed.messages(requests), timeout=timeout_s, metadata=headers
        )
        try:
            feed.bind(call)
            for message in call:
                yield stream_item(message, target)
        except grpc.RpcError as failure:
            error = error_of(failure, target)
            if isinstance(error, Unavailable):
                self._plan.endpoints.rest(endpoint, self._plan.clock())
            raise feed.failure or error from failure
        finally:
            call.cancel()
        if feed.failure is not None:
            raise feed.failure

    def server_live(self, *, timeout_s: float | None = None, metadata: Metadata | None = None) -> bool:
        """Whether the gateway whose turn it is answers requests at all."""
        return self._call(operations.server_live(), timeout_s, metadata)

    def server_ready(self, *, timeout_s: float | None = None, metadata: Metadata | None = None) -> bool:
        """Whether the gateway whose turn it is can serve its models."""
        return self._call(operations.server_ready(), timeout_s, metadata)

    def model_ready(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> bool:
        """Whether the model can serve now; an unknown one raises `NotFound`."""
        return self._call(operations.model_ready(name, version), timeout_s, metadata)

    def server_metadata(
        self, *, timeout_s: float | None = None, metadata: Metadata | None = None
    ) -> ServerMetadata:
        """Name, version and protocol extensions of the server."""
        return self._call(operations.server_metadata(), timeout_s, metadata)

    def model_metadata(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> ModelMetadata:
        """Names, datatypes and shapes of a model's inputs and outputs."""
        return self._call(operations.model_metadata(name, version), timeout_s, metadata)

    def models(
        self,
        *,
        ready: bool = False,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> tuple[ModelIndex, ...]:
        """Every version of every model with its state; with `ready` only those that can serve."""
        return self._call(operations.models(ready), timeout_s, metadata)

    def statistics(
        self,
        name: str = "",
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> tuple[pb.ModelStatistics, ...]:
        """Counts and durations (ns) of one gateway by model version; all models without a name."""
        return self._call(operations.statistics(name, version), timeout_s, metadata)

    def model_config(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> model_config_pb2.ModelConfig:
        """A model's configuration in Triton's form."""
        return self._call(operations.model_config(name, version), timeout_s, metadata)

    def close(self) -> None:
        """Close every connection; calls under way in other threads raise `Cancelled`. Closing twice is no
        error."""
        self._closed = True
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, operation: Operation[T], timeout_s: float | None, metadata: Metadata | None) -> T:
        headers = self._plan.headers(metadata)
        attempts = self._plan.attempts(timeout_s)
        while True:
            self._check_open()
            attempt = attempts.next()
            method = getattr(self._stubs[attempt.endpoint], operation.method)
            try:
                response, call = method.with_call(
                    operation.request, timeout=attempt.timeout_s, metadata=headers
                )
            except grpc.RpcError as failure:
                error = error_of(failure, self._plan.endpoints.targets[attempt.endpoint])
                delay_s = attempts.failed(error)
                if delay_s is None:
                    raise error from failure
            else:
                return operation.read(response, read_trailers(call.trailing_metadata()))
            self._sleep(delay_s)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")


def _open(target: str, credentials: grpc.ChannelCredentials | None, max_message_bytes: int) -> grpc.Channel:
    options = channel_options(target, max_message_bytes)
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)
