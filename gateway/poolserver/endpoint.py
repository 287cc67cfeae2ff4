"""Where gateways reach a pool: a Unix socket or gRPC, open from the beginning and served later."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from gateway.frontend.listeners import open_listeners
from gateway.frontend.listening import Listening
from gateway.poolserver.broker import Broker, open_socket
from gateway.poolserver.gatekeeper import Gatekeeper
from gateway.poolserver.service import PoolService
from gateway.poolserver.sources import Sources
from gateway.workerpool.remote.address import PoolAddress
from gateway.workerpool.remote.pieces import MAX_MESSAGE_BYTES
from gateway.workerpool.remote.stream import keepalive_options

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.clock import Clock
    from gateway.poolserver.listening import PoolListening
    from gateway.poolserver.settings import PoolSettings
    from gateway.poolserver.workers import PoolWorkers
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.remote.way import Description

_MAX_STREAMS = 256  # of one connection; a gateway has one for each slot
_GOING_S = 0.5  # for calls that are being answered


class Endpoint(Protocol):
    """`address` is the one that gateways are told. `gateways` counts their links."""

    address: PoolAddress

    @property
    def gateways(self) -> int: ...

    def serving(self, pool: Pool, workers: PoolWorkers) -> AbstractAsyncContextManager[None]:
        """Serve within this context, once."""
        ...

    async def drain(self) -> None:
        """Ask all gateways to leave, and wait until they have."""
        ...

    def close(self) -> None:
        """Let go of what was opened and never served."""
        ...


class UnixEndpoint:
    """The pool behind a Unix socket, which is open from the beginning."""

    def __init__(self, address: PoolAddress, description: Description) -> None:
        """Raises OSError."""
        self.address = address
        self._description = description
        self._socket: socket.socket | None = open_socket(self.address.path)
        self._broker: Broker | None = None

    @asynccontextmanager
    async def serving(self, pool: Pool, workers: PoolWorkers) -> AsyncIterator[None]:
        assert self._socket is not None, "it is served once"
        sock, self._socket = self._socket, None
        self._broker = Broker(sock, self.address.path, workers, self._description)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._broker.run(), name="broker")
            yield
            task.cancel()

    @property
    def gateways(self) -> int:
        return self._broker.gateways if self._broker is not None else 0

    async def drain(self) -> None:
        if self._broker is not None:
            await self._broker.drain()

    def close(self) -> None:
        """Let go of the socket, where it was never served."""
        if self._socket is not None:
            self._socket.close()
            os.unlink(self.address.path)


class GrpcEndpoint:
    """The pool behind gRPC. Its port is bound from the beginning."""

    def __init__(
        self, settings: PoolSettings, listening: PoolListening, description: Description, clock: Clock
    ) -> None:
        """Raises OSError, ListenerInvalid."""
        self._settings = settings
        self._description = description
        self._clock = clock
        self._gatekeeper = Gatekeeper(listening.allowed)
        self._server: Any = grpc.aio.server(
            options=[
                *keepalive_options(),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", _MAX_STREAMS),
                ("grpc.so_reuseport", 0),
            ]
        )
        address, tls = listening.address, self._settings.tls
        bound = open_listeners(
            self._server, Listening(address.host, address.port, MAX_MESSAGE_BYTES, 0, tls=tls)
        )
        port = int(bound.rpartition(":")[2])
        advertised = listening.advertised
        self.address = PoolAddress(host=advertised.host, port=advertised.port or port)
        self._service: PoolService | None = None

    @asynccontextmanager
    async def serving(self, pool: Pool, workers: PoolWorkers) -> AsyncIterator[None]:
        settings = self._settings
        self._service = PoolService(
            workers,
            self._gatekeeper,
            Sources(),
            self._description,
            self._clock,
            pool.copying,
            segment_bytes=settings.segment_bytes,
            budget_bytes=settings.budget_bytes,
        )
        self._server.add_generic_rpc_handlers((self._service.methods(),))
        await self._server.start()
        try:
            yield
        finally:
            await self._server.stop(_GOING_S)

    @property
    def gateways(self) -> int:
        return self._service.gateways if self._service is not None else 0

    async def drain(self) -> None:
        if self._service is not None:
            await self._service.drain()

    def close(self) -> None:
        """Nothing is left of a server that was never started, and one that was has been stopped."""
