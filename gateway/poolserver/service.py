"""The pool's service for gateways on other machines: `PoolLink` of protos/pool_link.proto."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.poolserver.bridge import Bridge
from gateway.poolserver.workers import SlotUnknown, WorkerAway
from gateway.workerpool.questions import WorkerLost
from gateway.workerpool.remote.terms import Terms
from protos import pool_link_pb2 as messages
from wire.frames import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.clock import Clock
    from gateway.poolserver.gatekeeper import Gatekeeper
    from gateway.poolserver.sources import Sources
    from gateway.poolserver.workers import PoolWorkers
    from gateway.workerpool.copying import Copying
    from gateway.workerpool.remote.way import Description

log = logging.getLogger(__name__)

_NAME = "crossgate.pool.PoolLink"
_FIRST_MESSAGE_S = 10.0
_GREETING_S = 20.0
# How long a gateway may take for what the worker has answered before it ended, and how that was.
_LAST_WORDS_S = 5.0


class PoolService:
    """`segment_bytes` and `budget_bytes` are those of the arena towards a worker."""

    def __init__(
        self,
        workers: PoolWorkers,
        gatekeeper: Gatekeeper,
        sources: Sources,
        description: Description,
        clock: Clock,
        copying: Copying,
        *,
        segment_bytes: int,
        budget_bytes: int,
    ) -> None:
        self._workers = workers
        self._gatekeeper = gatekeeper
        self._sources = sources
        self._description = description
        self._clock = clock
        self._copying = copying
        self._segment_bytes = segment_bytes
        self._budget_bytes = budget_bytes
        self._bridges: dict[Bridge, None] = {}  # in the order in which they came
        self._leaving = ""  # why this pool ends
        self._left = asyncio.Event()  # no gateway is connected

    @property
    def gateways(self) -> int:
        """How many links there are."""
        return len(self._bridges)

    def methods(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            _NAME,
            {
                "Describe": grpc.unary_unary_rpc_method_handler(
                    self.describe,
                    messages.DescribeRequest.FromString,
                    messages.Description.SerializeToString,
                ),
                "End": grpc.unary_unary_rpc_method_handler(
                    self.end, messages.EndRequest.FromString, messages.EndResponse.SerializeToString
                ),
                "Connect": grpc.stream_stream_rpc_method_handler(self.connect),
            },
        )

    async def drain(self) -> None:
        """Ask all gateways to leave, and wait until they have."""
        self._leaving = "this pool ends"
        for bridge in self._bridges:
            bridge.goodbye(self._leaving)
        while self._bridges:
            self._left.clear()
            await self._left.wait()

    async def _admit(self, context: Any) -> None:
        refusal = self._gatekeeper.refusal(context.auth_context())
        if refusal:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if self._leaving:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self._leaving)

    async def describe(self, request: messages.DescribeRequest, context: Any) -> messages.Description:
        await self._admit(context)
        found = self._description
        return messages.Description(node=found.node, release=found.release, slots=found.slots)

    async def end(self, request: messages.EndRequest, context: Any) -> messages.EndResponse:
        await self._admit(context)
        try:
            self._workers.end(request.slot, request.pid, request.reason[:1000])
        except SlotUnknown as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return messages.EndResponse()

    async def connect(self, _: Any, context: Any) -> None:
        """Serve one stream. An exception of `abort` ends it with the status."""
        await self._admit(context)
        hello = await self._first(context)
        try:
            sock, pid = await self._workers.connect(hello.slot)
        except SlotUnknown as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except WorkerAway as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        terms = Terms(hello.gateway[:100] or "gateway", self._segment_bytes, self._budget_bytes)
        ending = _Ending(grpc.StatusCode.OK, "")
        async with asyncio.TaskGroup() as tasks:
            bridge = Bridge(
                sock, terms, hello.max_output_bytes, self._sources, self._clock, self._copying, tasks
            )
            self._bridges[bridge] = None
            try:
                how = partial(self._workers.how_it_ended, hello.slot, pid)
                ending = await self._serve(bridge, context, tasks, how)
            finally:
                bridge.close()
                del self._bridges[bridge]
                self._left.set()
        if ending.code is not grpc.StatusCode.OK:
            await context.abort(ending.code, ending.reason)

    async def _first(self, context: Any) -> messages.Open:
        """Return how the stream is opened."""
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                message = await context.read()
            if message is not grpc.aio.EOF:
                opening = messages.FromGateway.FromString(message)
                if opening.WhichOneof("what") == "open":
                    return opening.open
        except (TimeoutError, DecodeError):
            pass
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a stream begins with how it is opened")
        raise AssertionError("abort raises")

    async def _serve(
        self,
        bridge: Bridge,
        context: Any,
        tasks: asyncio.TaskGroup,
        how_it_ended: Callable[[str], Awaitable[str]],
    ) -> _Ending:
        """Carry messages until one side ends; return how."""
        opened = messages.Opened(segment_bytes=self._segment_bytes, budget_bytes=self._budget_bytes)
        await context.write(messages.FromPool(opened=opened).SerializeToString())
        if self._leaving:
            bridge.goodbye(self._leaving)
        ended: asyncio.Future[_Ending] = asyncio.get_running_loop().create_future()
        moving = (
            tasks.create_task(_read(bridge, context, ended)),
            tasks.create_task(_write(bridge, context)),
        )
        try:
            await bridge.greet(_GREETING_S)
            await asyncio.wait((ended, bridge.lost), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                # In a frame, and not in the status alone: a gateway that is sending would not see that.
                reason = await how_it_ended(bridge.lost.result())
                bridge.goodbye(reason, ended=True)
                await asyncio.wait((ended,), timeout=_LAST_WORDS_S)
                return _Ending(grpc.StatusCode.ABORTED, reason)
            return ended.result()
        except (WorkerLost, TimeoutError) as error:
            reason = await how_it_ended(str(error) or "no greeting from the worker")
            return _Ending(grpc.StatusCode.ABORTED, reason)
        finally:
            for task in moving:
                task.cancel()


class _Ending:
    """How a stream ends; OK: the gateway has left."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        self.code = code
        self.reason = reason


async def _read(bridge: Bridge, context: Any, ended: asyncio.Future[_Ending]) -> None:
    ending = _Ending(grpc.StatusCode.OK, "")
    try:
        while (message := await context.read()) is not grpc.aio.EOF:
            bridge.receive(message)
    except ProtocolError as error:
        log.warning("a gateway broke the protocol: %s", error)
        ending = _Ending(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    if not ended.done():
        ended.set_result(ending)


async def _write(bridge: Bridge, context: Any) -> None:
    while True:
        while (message := bridge.take()) is not None:
            await context.write(message)
        bridge.output.clear()
        await bridge.output.wait()
