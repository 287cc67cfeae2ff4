"""The listener for probes and Prometheus: HTTP/1.1 on asyncio, without a web framework."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from gateway.http.connection import Connection, Limits

if TYPE_CHECKING:
    import socket

    from gateway.http.endpoints import Endpoints

_GRACE_S = 2.0


class Address(NamedTuple):
    host: str
    port: int


class HttpServer:
    """Owns its listening socket and connections; makes no tasks. Above `limits.connections` a new one
    is told 503."""

    def __init__(self, endpoints: Endpoints, limits: Limits | None = None) -> None:
        self._endpoints = endpoints
        self._limits = Limits() if limits is None else limits
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    async def start(self, host: str, port: int, sock: socket.socket | None = None) -> Address:
        """Listen; port 0 takes a free one. Returns the bound address. Raises OSError. A `sock` that listens
        already takes the place of host and port, and is closed at the end.
        """
        loop = asyncio.get_running_loop()
        if sock is None:
            self._server = await loop.create_server(lambda: self._accept(loop), host, port)
        else:
            self._server = await loop.create_server(lambda: self._accept(loop), sock=sock)
        bound = self._server.sockets[0].getsockname()
        return Address(bound[0], bound[1])

    async def close(self, grace_s: float = _GRACE_S) -> None:
        """Stop listening, let answers that are under way go out for at most `grace_s`, then end
        every connection.

        If cancelled, the connections are ended at once. Calling it again does nothing.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in list(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(grace_s):
                await self.wait_empty()
        except TimeoutError:
            pass
        finally:
            for connection in list(self._connections):
                connection.abort()
        await self.wait_empty()
        await server.wait_closed()

    async def wait_empty(self) -> None:
        """Until there is no connection."""
        await self._all_gone.wait()

    def _accept(self, loop: asyncio.AbstractEventLoop) -> Connection:
        refused = len(self._connections) >= self._limits.connections
        connection = Connection(loop, self._endpoints.answer, self._limits, self._forget, refused=refused)
        self._connections.add(connection)
        self._all_gone.clear()
        return connection

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()
