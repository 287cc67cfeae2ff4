"""The front end on grpcio: the reference behind the seam, and what runs where the native module was not
built.

One generic handler on raw bytes; the calls of one turn of the loop become one burst. A future per request
exists here and nowhere below.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc

from gateway.call import Call
from gateway.errors import Bug, Exhausted, GatewayError
from gateway.frontend.burst import Burst
from gateway.frontend.codec import ResponseEncoder
from gateway.frontend.listeners import open_listeners, server_options
from gateway.frontend.reading import RequestReader
from gateway.frontend.status import pushback, status_code, status_message
from gateway.scheduling.layout import split
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.call import BatchReply, CallId, Reply
    from gateway.clock import Clock
    from gateway.frontend.listening import Listening
    from gateway.frontend.seam import OnCalls, OnCancels, Servicers, StreamServicer, UnaryServicer

log = logging.getLogger(__name__)

SERVICE = "/inference.GRPCInferenceService/"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# How many answers one stream may have outstanding before its requests are no longer read.
_MAX_STREAM_CALLS = 512
# How long streams that stay open, such as Health/Watch, may take for their last message when all is answered.
_LAST_WORDS_S = 0.25

Trailing = tuple[tuple[str, str], ...]


class Answer(NamedTuple):
    """What a call is answered with: a message, or an error."""

    message: bytes
    trailing: Trailing
    error: GatewayError | None = None


class Pending(NamedTuple):
    """A request on its way. `call` is None where the message was none."""

    call: Call | None
    future: asyncio.Future[Answer]


class ResponseTooLarge(Exhausted):
    def __init__(self, model: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"model {model}: the response of {size_bytes} bytes is over the limit of {limit_bytes} bytes"
        )


class GrpcioFrontend:
    """`max_message_bytes` holds both ways. Inherited sockets cannot be taken over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        servicers: Servicers,
        listening: Listening,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._servicers = servicers
        self._listening = listening
        self._max_message_bytes = listening.max_message_bytes
        self._reader = RequestReader()
        self._encoder = ResponseEncoder()
        self._ids = itertools.count(1)
        self._waiting: dict[CallId, asyncio.Future[Answer]] = {}
        self._burst = Burst(loop, clock, lambda calls: None, lambda ids: None)  # replaced by `start`
        self._idle = asyncio.Event()
        self._idle.set()
        self._unanswered = 0
        self._server = grpc.aio.server(options=server_options(listening))
        self._server.add_generic_rpc_handlers((_Handlers(self._methods()),))

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        methods = {
            f"{SERVICE}ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            f"{SERVICE}ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream_infer),
        }
        for name, unary in self._servicers.unary.items():
            methods[name] = grpc.unary_unary_rpc_method_handler(self._unary(unary))
        for name, stream in self._servicers.streams.items():
            methods[name] = grpc.stream_stream_rpc_method_handler(self._stream(stream))
        return methods

    def start(self, on_calls: OnCalls, on_cancels: OnCancels) -> None:
        self._burst = Burst(self._loop, self._clock, on_calls, on_cancels)

    async def listen(self) -> str:
        address = open_listeners(self._server, self._listening)
        await self._server.start()
        return address

    async def drain(self, grace_s: float, *, hand_over: bool = False) -> None:
        # grpcio cancels what arrives while it stops: until all is answered the server stays up, and new
        # requests are refused with a status that says where to go
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("drain: %d requests were not answered within %g s", self._unanswered, grace_s)
        await self._server.stop(_LAST_WORDS_S)

    async def close(self) -> None:
        await self._server.stop(None)

    def settle(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            future = self._waiting.pop(reply.call.id, None)
            if future is None or future.done():
                continue
            future.set_result(self._answer(reply))

    def traffic(self) -> None:
        return None  # grpcio does not tell

    def settle_batch(self, reply: BatchReply) -> None:
        self.settle(split(reply))

    def _answer(self, reply: Reply) -> Answer:
        if reply.error is not None:
            return Answer(b"", _provenance(reply), reply.error)
        try:
            message = self._encoder.encode(reply)
        except Exception as error:
            return Answer(b"", (), _bug(error))
        if len(message) > self._max_message_bytes:
            too_large = ResponseTooLarge(reply.model, len(message), self._max_message_bytes)
            return Answer(b"", _provenance(reply), too_large)
        return Answer(message, _provenance(reply))

    def _submit(self, message: bytes, context: Any, deadline_ns: int | None) -> Pending:
        """Make a call of a message and put it into the burst."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        try:
            request, shape_key = self._reader.read(message)
        except GatewayError as error:
            future.set_result(Answer(b"", (), error))
            return Pending(None, future)
        except Exception as error:
            future.set_result(Answer(b"", (), _bug(error)))
            return Pending(None, future)
        call = Call(
            id=next(self._ids),
            origin=self,
            model=request.model,
            version=request.version,
            request_id=request.id,
            inputs=request.inputs,
            outputs=request.outputs,
            parameters=request.parameters,
            arrived_ns=self._clock.now_ns(),
            deadline_ns=deadline_ns,
            metadata=_Metadata(context),
            size_bytes=len(message),
            shape_key=shape_key,
        )
        self._waiting[call.id] = future
        self._burst.add(call, len(self._waiting))
        return Pending(call, future)

    def _cancel(self, pending: Pending) -> None:
        call = pending.call
        if call is not None and self._waiting.pop(call.id, None) is not None:
            self._burst.cancel(call.id)

    def _enter(self) -> None:
        self._unanswered += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._unanswered -= 1
        if self._unanswered == 0:
            self._idle.set()

    async def _infer(self, message: bytes, context: Any) -> bytes:
        self._enter()
        try:
            pending = self._submit(message, context, self._deadline_ns(context))
            try:
                answer = await pending.future
            except asyncio.CancelledError:
                self._cancel(pending)
                raise
            if answer.error is not None:
                await _abort(context, answer.error, answer.trailing)
            context.set_trailing_metadata(answer.trailing)
            return answer.message
        finally:
            self._leave()

    def _deadline_ns(self, context: Any) -> int | None:
        remaining_s = context.time_remaining()
        return None if remaining_s is None else self._clock.now_ns() + int(remaining_s * 1e9)

    async def _stream_infer(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Triton's form: answers in the order of their requests, errors in-band, the stream stays open.

        With metadata `triton_grpc_error: true` an error becomes the stream's status and closes it. Writes by
        itself: a generator of answers would not hear of a cancellation while grpcio writes one of them.
        """
        strict = _metadata(context).get("triton_grpc_error", "").lower() == "true"
        queue: asyncio.Queue[Pending | None] = asyncio.Queue(_MAX_STREAM_CALLS)
        outstanding: deque[Pending] = deque()  # read and not answered, those in the queue too
        reader = asyncio.create_task(self._read_stream(requests, context, queue, outstanding))
        try:
            while (pending := await queue.get()) is not None:
                answer = await pending.future
                if answer.error is not None and strict:
                    await _abort(context, answer.error, answer.trailing)
                await context.write(_stream_message(pending, answer))
                outstanding.popleft()
                self._leave()
            await reader
        finally:
            reader.cancel()
            for pending in outstanding:
                self._cancel(pending)
                self._leave()
            while not queue.empty():
                queue.get_nowait()  # the reader's last word needs room

    async def _read_stream(
        self,
        requests: AsyncIterator[bytes],
        context: Any,
        queue: asyncio.Queue[Pending | None],
        outstanding: deque[Pending],
    ) -> None:
        try:
            async for message in requests:
                pending = self._submit(message, context, self._deadline_ns(context))
                self._enter()
                outstanding.append(pending)
                await queue.put(pending)
        finally:
            await queue.put(None)

    def _unary(self, servicer: UnaryServicer) -> Callable[[bytes, Any], Any]:
        async def handle(message: bytes, context: Any) -> bytes:
            try:
                answer = servicer(message, _Metadata(context))
                return answer if isinstance(answer, bytes) else await answer
            except GatewayError as error:
                failure = error
            except Exception as error:
                failure = _bug(error)
            await _abort(context, failure)

        return handle

    def _stream(self, servicer: StreamServicer) -> Callable[[AsyncIterator[bytes], Any], Any]:
        async def handle(requests: AsyncIterator[bytes], context: Any) -> None:
            try:
                async with aclosing(servicer(requests)) as messages:
                    async for message in messages:
                        await context.write(message)
                return
            except GatewayError as error:
                failure = error
            except Exception as error:
                failure = _bug(error)
            await _abort(context, failure)

        return handle


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # untyped library
    def __init__(self, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self._methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(details.method)


class _Metadata(Mapping[str, str]):
    """A request's metadata, read from grpcio when somebody asks: most requests are never asked for theirs."""

    __slots__ = ("_context", "_read")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._read: dict[str, str] | None = None

    def _dict(self) -> dict[str, str]:
        if self._read is None:
            self._read = _metadata(self._context)
        return self._read

    def __getitem__(self, key: str) -> str:
        return self._dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict())

    def __len__(self) -> int:
        return len(self._dict())


def _metadata(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _provenance(reply: Reply) -> Trailing:
    """Which version and revision answered; nothing where the request reached none."""
    if not reply.revision:
        return ()
    revision = ("crossgate-revision", str(reply.revision))
    return (("crossgate-version", reply.version), revision) if reply.version else (revision,)


def _stream_message(pending: Pending, answer: Answer) -> bytes:
    """One request's only response. An error carries the id, so that the client knows which request failed."""
    response = pb.ModelStreamInferResponse()
    if answer.error is None:
        response.infer_response.ParseFromString(answer.message)
    else:
        response.error_message = status_message(answer.error)
        response.infer_response.id = pending.call.request_id if pending.call is not None else ""
    response.infer_response.parameters["triton_final_response"].bool_param = True
    return response.SerializeToString()


def _bug(error: Exception) -> Bug:
    bug = Bug(uuid.uuid4().hex[:12])
    log.error("bug in the front end, error id %s", bug.error_id, exc_info=error)
    return bug


async def _abort(context: Any, error: GatewayError, trailing: Trailing = ()) -> NoReturn:
    await context.abort(_CODES[status_code(error)], status_message(error), (*trailing, *pushback(error)))
    raise AssertionError("abort does not return")
