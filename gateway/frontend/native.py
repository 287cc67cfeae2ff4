"""The front end on the native extension: Rust carries the bytes, Python sees bursts of calls.

One descriptor wakes the loop for everything that has come since the last look; a batch is answered in one
call. RPCs that are not inference reach the same servicers as under grpcio, in a task for each stream that
stays open.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from gateway import _native
from gateway.call import Tensor
from gateway.errors import Bug, GatewayError
from gateway.frontend.listening import ListenerInvalid
from gateway.frontend.seam import Traffic
from gateway.frontend.status import retry_after_ms, status_code, status_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from gateway.call import BatchReply, Reply
    from gateway.clock import Clock
    from gateway.frontend.listening import Listening
    from gateway.frontend.seam import OnCalls, OnCancels, Servicers, StreamServicer

log = logging.getLogger(__name__)

Address = tuple[int, int, int]  # which request: connection, stream, message of the stream

# How long connections may take for their last answers, and streams that stay open for their last message.
_LAST_WORDS_S = 0.5
# Where another process serves there is no hurry: a slow client may take so long to hear where to go.
_FAREWELL_S = 5.0


class NativeFrontend:
    """`settle` and `settle_batch` only encode and hand over; sending is the extension's own thread's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, servicers: Servicers, listening: Listening
    ) -> None:
        self._loop = loop
        self._servicers = servicers
        self._listening = listening
        self._on_calls: OnCalls = lambda calls: None  # replaced by `start`
        self._on_cancels: OnCancels = lambda ids: None
        self._server: _native.Server | None = None
        self._streams: dict[Address, _Stream] = {}
        self._answers: set[asyncio.Task[None]] = set()  # to calls that wait for something
        self._quiet = asyncio.Event()  # during a drain: something has been answered, or a connection has gone

    def start(self, on_calls: OnCalls, on_cancels: OnCancels) -> None:
        self._on_calls = on_calls
        self._on_cancels = on_cancels

    async def listen(self) -> str:
        config = _config(self._listening, self._servicers)
        try:
            self._server = _native.Server(json.dumps(config), self, Tensor)
        except OSError as error:
            where = f"{self._listening.host}:{self._listening.port}"
            if error.errno is None:  # a file of TLS
                raise ListenerInvalid(str(error)) from error
            raise OSError(f"cannot listen on {where}: {error.strerror}") from error
        self._loop.add_reader(self._server.fileno(), self._on_readable)
        return self._server.address

    def _on_readable(self) -> None:
        assert self._server is not None, "the descriptor is the server's"
        calls, cancels, events, warnings = self._server.take()
        if calls:
            self._on_calls(calls)
        if cancels:
            self._on_cancels(cancels)
        for event in events:
            self._on_event(*event)
        for warning in warnings:
            log.warning("%s", warning)
        self._quiet.set()

    def traffic(self) -> Traffic | None:
        return None if self._server is None else Traffic(*self._server.counts())

    # Answers.

    def settle(self, replies: Sequence[Reply]) -> None:
        server = self._server
        if server is None:
            return
        errors = []
        for reply in replies:
            error = reply.error
            if error is None:
                error = self._settle_one(server, reply)
            if error is not None:
                told = status_message(error)
                errors.append(
                    (
                        reply.call,
                        status_code(error),
                        told,
                        retry_after_ms(error),
                        reply.version,
                        reply.revision,
                    )
                )
        if errors:
            server.settle_errors(errors)

    def _settle_one(self, server: _native.Server, reply: Reply) -> GatewayError | None:
        try:
            server.settle_batch(
                [reply.call], [0], [0], 0, reply.model, reply.version, reply.revision, reply.outputs
            )
        except Exception as error:
            return _bug(error)
        return None

    def settle_batch(self, reply: BatchReply) -> None:
        server = self._server
        if server is None:
            return
        try:
            server.settle_batch(
                reply.calls,
                reply.starts,
                reply.rows,
                reply.total_rows,
                reply.model,
                reply.version,
                reply.revision,
                reply.outputs,
            )
        except Exception as error:
            told = _bug(error)
            server.settle_errors(
                [
                    (call, status_code(told), status_message(told), None, reply.version, reply.revision)
                    for call in reply.calls
                ]
            )

    # Other RPCs.

    def _on_event(
        self,
        what: str,
        address: Address,
        method: str,
        message: bytes,
        metadata: Mapping[str, str] | None,
    ) -> None:
        if what == "unary":
            assert metadata is not None, "a unary RPC has metadata"
            self._answer_unary(address, method, message, metadata)
        elif what == "opened":
            stream = self._streams[address] = _Stream(self._required(), address)
            servicer = self._servicers.streams[method]
            stream.task = self._loop.create_task(stream.serve(servicer), name=f"stream {method}")
            stream.task.add_done_callback(lambda _: self._streams.pop(address, None))
        elif (open_stream := self._streams.get(address)) is not None:
            if what == "message":
                open_stream.messages.put_nowait(message)
            elif what == "half-closed":
                open_stream.messages.put_nowait(None)
            elif open_stream.task is not None:
                open_stream.task.cancel()

    def _answer_unary(
        self, address: Address, method: str, message: bytes, metadata: Mapping[str, str]
    ) -> None:
        server = self._required()
        try:
            answer = self._servicers.unary[method](message, metadata)
            if isinstance(answer, bytes):
                server.answer(address, answer)
            else:
                task = self._loop.create_task(self._answer_later(address, answer), name=f"answer {method}")
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
        except GatewayError as error:
            _fail(server, address, error)
        except Exception as error:
            _fail(server, address, _bug(error))

    async def _answer_later(self, address: Address, answer: Coroutine[Any, Any, bytes]) -> None:
        try:
            message = await answer
            self._required().answer(address, message)
        except GatewayError as error:
            _fail(self._required(), address, error)
        except Exception as error:
            _fail(self._required(), address, _bug(error))

    def _required(self) -> _native.Server:
        assert self._server is not None, "events come from the server"
        return self._server

    # The end.

    async def drain(self, grace_s: float, *, hand_over: bool = False) -> None:
        server = self._server
        if server is None:
            return
        # new connections are still taken unless another process serves: they hear where to go
        server.drain(hand_over)
        try:
            async with asyncio.timeout(grace_s):
                while server.unanswered:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            log.warning("drain: %d requests were not answered within %g s", server.unanswered, grace_s)
        try:
            async with asyncio.timeout(_FAREWELL_S if hand_over else _LAST_WORDS_S):
                while server.counts()[0]:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass  # connections whose clients keep a stream open, or do not heed that we go

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._loop.remove_reader(server.fileno())
        tasks = [stream.task for stream in self._streams.values() if stream.task is not None]
        tasks += self._answers
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()


class _Stream:
    """One RPC that stays open. None in `messages` is the end of the caller's side."""

    def __init__(self, server: _native.Server, address: Address) -> None:
        self._server = server
        self._address = address
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()  # the extension bounds it
        self.task: asyncio.Task[None] | None = None

    async def serve(self, servicer: StreamServicer) -> None:
        try:
            async with aclosing(servicer(self._requests())) as messages:
                async for message in messages:
                    self._server.send(self._address, message)
            self._server.end(self._address)
        except GatewayError as error:
            _fail(self._server, self._address, error)
        except Exception as error:
            _fail(self._server, self._address, _bug(error))

    async def _requests(self) -> AsyncIterator[bytes]:
        while (message := await self.messages.get()) is not None:
            self._server.taken(self._address)
            yield message


def _config(listening: Listening, servicers: Servicers) -> dict[str, object]:
    tls = listening.tls
    return {
        "host": listening.host,
        "port": listening.port,
        "unix": listening.unix or "",
        "fds": list(listening.fds),
        "tls": tls
        and {
            "certificate": str(tls.certificate),
            "key": str(tls.key),
            "client_ca": str(tls.client_ca or ""),
        },
        "max_message_bytes": listening.max_message_bytes,
        "max_held_bytes": listening.max_held_bytes,
        "max_concurrent_streams": listening.max_concurrent_streams,
        "max_connection_age_s": listening.max_connection_age_s,
        "keepalive_s": listening.keepalive_s,
        "keepalive_timeout_s": listening.keepalive_timeout_s,
        "unary": list(servicers.unary),
        "streams": list(servicers.streams),
    }


def _fail(server: _native.Server, address: Address, error: GatewayError) -> None:
    server.fail(address, status_code(error), status_message(error), retry_after_ms(error))


def _bug(error: Exception) -> Bug:
    bug = Bug(uuid.uuid4().hex[:12])
    log.error("bug in the front end, error id %s", bug.error_id, exc_info=error)
    return bug
