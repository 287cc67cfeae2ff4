"""The asyncio client."""

from __future__ import annotations

import asyncio
import random as _random
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from crossgate import operations
from crossgate.channel import MAX_MESSAGE_BYTES, channel_options
from crossgate.endpoints import Endpoints
from crossgate.errors import Cancelled, Unavailable, error_of
from crossgate.feed import RequestFeed, stream_item
from crossgate.headers import read_trailers
from crossgate.plan import CallPlan, Clock, Metadata, Random
from crossgate.request import InferRequest
from crossgate.retry import RetryPolicy
from protos.inference_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Iterable,
        Mapping,
        Sequence,
    )
    from types import TracebackType

    from crossgate.descriptions import ModelIndex, ModelMetadata, ServerMetadata
    from crossgate.errors import RequestFailed
    from crossgate.operations import Operation
    from crossgate.parameters import Parameter
    from crossgate.result import InferResult
    from protos import inference_pb2 as pb
    from protos import model_config_pb2

T = TypeVar("T")


class AsyncClient:
    """`crossgate.Client` for asyncio: the same arguments, deadlines, retries and errors.

    >>> async def main():
    ...     async with AsyncClient(["gateway-a:8001", "gateway-b:8001"]) as client:
    ...         return await client.infer("double", {"x": [[1.5, 2.0]]})
    >>> asyncio.run(main())["y"]
    array([[3., 4.]])

    May be made outside of an event loop and belongs to the loop of its first call. Cancelling a task that
    awaits a call cancels the call at the server and leaves the client as it was.
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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        policy = RetryPolicy(max_attempts=retries + 1)
        self._plan = CallPlan(Endpoints(endpoints), policy, timeout_s, metadata, clock, random)
        self._sleep = sleep
        self._closed = False
        self._credentials = credentials
        self._options = {  # {target: options}; made here for what they may raise
            target: channel_options(target, max_message_bytes) for target in self._plan.endpoints.targets
        }
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: list[Any] = []  # one per endpoint, made with the channels by the first call

    async def infer(
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
        return await self._call(operations.infer(request), timeout_s, metadata)

    async def stream(
        self,
        requests: AsyncIterable[InferRequest] | Iterable[InferRequest],
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncGenerator[InferResult | RequestFailed, None]:
        """Send requests as the server takes them and yield its answers as they come.

        A request that fails alone yields a `RequestFailed` and the stream goes on; what ends the whole stream
        is raised. All requests go to one gateway. There is no deadline unless `timeout_s` gives one to the
        whole stream. Nothing is sent before the first answer is asked for; closing the generator cancels the
        call. What `requests` raises, which is iterated in another task, is raised here.
        """
        self._check_open()
        headers = self._plan.headers(metadata)
        endpoint = self._plan.endpoints.choose(self._plan.clock())
        target = self._plan.endpoints.targets[endpoint]
        feed = RequestFeed()
        call = self._stub(endpoint).ModelStreamInfer(
            feed.messages_async(requests), timeout=timeout_s, metadata=headers
        )
        try:
            feed.bind(call)
            async for message in call:
                yield stream_item(message, target)
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure, target)
            if isinstance(error, Unavailable):
                self._plan.endpoints.rest(endpoint, self._plan.clock())
            raise feed.failure or error from failure
        except asyncio.CancelledError:
            if feed.failure is not None and not _is_cancelling():
                raise feed.failure from None
            self._raise_if_closed(target)
            raise
        finally:
            call.cancel()
        if feed.failure is not None:
            raise feed.failure

    async def server_live(self, *, timeout_s: float | None = None, metadata: Metadata | None = None) -> bool:
        """Whether the gateway whose turn it is answers requests at all."""
        return await self._call(operations.server_live(), timeout_s, metadata)

    async def server_ready(self, *, timeout_s: float | None = None, metadata: Metadata | None = None) -> bool:
        """Whether the gateway whose turn it is can serve its models."""
        return await self._call(operations.server_ready(), timeout_s, metadata)

    async def model_ready(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> bool:
        """Whether the model can serve now; an unknown one raises `NotFound`."""
        return await self._call(operations.model_ready(name, version), timeout_s, metadata)

    async def server_metadata(
        self, *, timeout_s: float | None = None, metadata: Metadata | None = None
    ) -> ServerMetadata:
        """Name, version and protocol extensions of the server."""
        return await self._call(operations.server_metadata(), timeout_s, metadata)

    async def model_metadata(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> ModelMetadata:
        """Names, datatypes and shapes of a model's inputs and outputs."""
        return await self._call(operations.model_metadata(name, version), timeout_s, metadata)

    async def models(
        self,
        *,
        ready: bool = False,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> tuple[ModelIndex, ...]:
        """Every version of every model with its state; with `ready` only those that can serve."""
        return await self._call(operations.models(ready), timeout_s, metadata)

    async def statistics(
        self,
        name: str = "",
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> tuple[pb.ModelStatistics, ...]:
        """Counts and durations (ns) of one gateway by model version; all models without a name."""
        return await self._call(operations.statistics(name, version), timeout_s, metadata)

    async def model_config(
        self,
        name: str,
        version: str = "",
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> model_config_pb2.ModelConfig:
        """A model's configuration in Triton's form."""
        return await self._call(operations.model_config(name, version), timeout_s, metadata)

    async def close(self) -> None:
        """Close every connection; calls under way in other tasks raise `Cancelled`. Closing twice is no
        error."""
        self._closed = True
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, operation: Operation[T], timeout_s: float | None, metadata: Metadata | None) -> T:
        headers = self._plan.headers(metadata)
        attempts = self._plan.attempts(timeout_s)
        while True:
            self._check_open()
            attempt = attempts.next()
            target = self._plan.endpoints.targets[attempt.endpoint]
            method = getattr(self._stub(attempt.endpoint), operation.method)
            call = method(operation.request, timeout=attempt.timeout_s, metadata=headers)
            try:
                response = await call
                trailers = read_trailers(await call.trailing_metadata())
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, target)
                delay_s = attempts.failed(error)
                if delay_s is None:
                    raise error from failure
            except asyncio.CancelledError:
                self._raise_if_closed(target)
                raise
            else:
                return operation.read(response, trailers)
            await self._sleep(delay_s)

    def _stub(self, endpoint: int) -> Any:
        """A channel binds to the running loop, so none is made before a call."""
        if not self._stubs:
            self._channels = [self._open(target) for target in self._plan.endpoints.targets]
            self._stubs = [GRPCInferenceServiceStub(channel) for channel in self._channels]
        return self._stubs[endpoint]

    def _open(self, target: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, self._options[target])
        return grpc.aio.secure_channel(target, self._credentials, self._options[target])

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _raise_if_closed(self, target: str) -> None:
        """Closing a channel cancels its calls as if their tasks were cancelled; tell the two apart."""
        if self._closed and not _is_cancelling():
            raise Cancelled("the client was closed", endpoint=target) from None


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
