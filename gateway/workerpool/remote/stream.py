"""The way to a pool over gRPC: one bidirectional stream for each link, in a connection of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.workerpool.remote.link import RemoteLink
from gateway.workerpool.remote.pieces import MAX_MESSAGE_BYTES
from gateway.workerpool.remote.way import (
    DESCRIBE_TIMEOUT_S,
    END_TIMEOUT_S,
    OPEN_TIMEOUT_S,
    Description,
    PoolUnreachable,
    SlotAway,
)
from protos import pool_link_pb2 as messages
from protos.pool_link_pb2_grpc import PoolLinkStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.workerpool.link import LinkEvents
    from gateway.workerpool.remote.terms import Terms
    from gateway.workerpool.remote.trust import Trust
    from wire.frames import Hello

CONNECT = "/crossgate.pool.PoolLink/Connect"
# A peer that is silent is asked after so long, and given up after as much again.
KEEPALIVE_S = 4.0
_CONNECT_TIMEOUT_S = 4.0
_NOT_YET = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
_NEVER_MS = 24 * 3600 * 1000
_SLOT_CODES = (
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
)


def keepalive_options() -> list[tuple[str, int]]:
    milliseconds = int(KEEPALIVE_S * 1000)
    return [
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        ("grpc.http2.ping_timeout_ms", milliseconds),  # else a minute at least
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", milliseconds // 4),
    ]


class StreamWay:
    """`identity` is the name that the pool's certificate must have; empty is without TLS."""

    def __init__(
        self,
        address: str,
        identity: str,
        trust: Trust,
        terms: Terms,
        clock: Clock,
    ) -> None:
        self._address = address
        self._identity = identity
        self._trust = trust
        self._terms = terms
        self._clock = clock

    def __str__(self) -> str:
        return f"grpc://{self._address}"

    def _channel(self) -> grpc.aio.Channel:
        """Return a channel of its own connection; files of certificates are read anew. Raises
        PoolUnreachable.
        """
        options: list[tuple[str, Any]] = [
            *keepalive_options(),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            # It never connects twice: a failed call keeps a channel alive until the next garbage collection.
            ("grpc.initial_reconnect_backoff_ms", _NEVER_MS),
            ("grpc.max_reconnect_backoff_ms", _NEVER_MS),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
        if not self._identity:
            return grpc.aio.insecure_channel(self._address, options)
        options.append(("grpc.ssl_target_name_override", self._identity))
        try:
            credentials = self._trust.credentials()
        except OSError as error:
            raise PoolUnreachable(f"{error.filename} cannot be read: {error.strerror}") from error
        return grpc.aio.secure_channel(self._address, credentials, options)

    async def describe(self) -> Description:
        """Raises PoolUnreachable."""
        request = messages.DescribeRequest()
        try:
            async with self._channel() as channel:
                found = await PoolLinkStub(channel).Describe(request, timeout=DESCRIBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise PoolUnreachable(f"{self}: {_words(error)}") from error
        return Description(found.node, found.release, tuple(found.slots))

    async def open(self, slot: str, events: LinkEvents, on_goodbye: Callable[[str], None]) -> StreamLink:
        """Raises PoolUnreachable, SlotAway."""
        channel = self._channel()
        try:
            await self._reach(channel)
            call = channel.stream_stream(CONNECT)()
            opened = await self._opened(call, slot)
        except BaseException:
            await channel.close()
            raise
        return StreamLink(channel, call, opened, events, self._terms, self._clock, on_goodbye)

    async def _reach(self, channel: grpc.aio.Channel) -> None:
        """Connect, or let the call say why that failed. A network that swallows what is sent is asked again
        sooner than TCP would. Raises PoolUnreachable.
        """
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                while (state := channel.get_state(try_to_connect=True)) in _NOT_YET:
                    await channel.wait_for_state_change(state)
        except TimeoutError as error:
            raise PoolUnreachable(f"{self}: no connection within {_CONNECT_TIMEOUT_S:g} s") from error

    async def _opened(self, call: Any, slot: str) -> messages.Opened:
        limit = self._terms.budget_bytes
        hello = messages.Open(slot=slot, gateway=self._terms.gateway, max_output_bytes=limit)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await call.write(messages.FromGateway(open=hello).SerializeToString())
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    raise PoolUnreachable(f"{self}: the pool ended the stream")
                return messages.FromPool.FromString(answer).opened
        except TimeoutError as error:
            raise PoolUnreachable(f"{self}: no answer within {OPEN_TIMEOUT_S:g} s") from error
        except DecodeError as error:
            raise PoolUnreachable(f"{self}: what answers is no pool") from error
        except asyncio.InvalidStateError as error:  # it ended before it could be written to
            raise PoolUnreachable(f"{self}: {await call.details()}") from error
        except grpc.aio.AioRpcError as error:
            if error.code() in _SLOT_CODES:
                raise SlotAway(error.details()) from error
            raise PoolUnreachable(f"{self}: {_words(error)}") from error

    async def end(self, slot: str, pid: int, reason: str) -> None:
        """Raises PoolUnreachable."""
        request = messages.EndRequest(slot=slot, pid=pid, reason=reason)
        try:
            async with self._channel() as channel:
                await PoolLinkStub(channel).End(request, timeout=END_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise PoolUnreachable(f"{self}: {_words(error)}") from error


class StreamLink:
    """A link and the stream that carries it."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        call: Any,
        opened: messages.Opened,
        events: LinkEvents,
        terms: Terms,
        clock: Clock,
        on_goodbye: Callable[[str], None],
    ) -> None:
        self._channel = channel
        self._call = call
        self._output = asyncio.Event()
        self.link = RemoteLink(
            asyncio.get_running_loop(),
            clock,
            events,
            name=terms.gateway,
            segment_bytes=opened.segment_bytes,
            budget_bytes=min(opened.budget_bytes, terms.budget_bytes),
            max_output_bytes=terms.budget_bytes,
            on_output=self._output.set,
            on_goodbye=on_goodbye,
        )

    @property
    def busy(self) -> bool:
        return self.link.busy

    async def greet(self, timeout_s: float) -> Hello:
        return await self.link.greet(timeout_s)

    @property
    def way_lost(self) -> bool:
        return self.link.way_lost

    def drain(self) -> None:
        self.link.drain()

    def close(self, reason: str) -> None:
        self.link.close(reason)

    async def reason_of_end(self, reason: str) -> str:
        return reason

    async def move(self) -> None:
        """Carry messages until the link is lost; then the stream is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._write()
                reading.cancel()
        finally:
            self.link.close("the gateway closes the link")
            self._call.cancel()
            await self._channel.close()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self.link.receive(message)
            self.link.close("the pool ended the stream")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ABORTED:  # the worker has ended, and this is how
                self.link.close(error.details(), way_lost=False)
            else:
                self.link.close(f"the connection to its pool was lost: {_words(error)}")

    async def _write(self) -> None:
        while self.link.lost is None:
            await self._output.wait()
            self._output.clear()
            try:
                while self.link.outbox:
                    await self._call.write(self.link.outbox.take())
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                continue  # the stream has ended; who reads sees why


def _words(error: grpc.aio.AioRpcError) -> str:
    """Return what went wrong, without the addresses and times that gRPC's core adds."""
    details = str(error.details() or error.code().name)
    return " ".join(details.split())[:400]
