"""A TCP relay in front of an etcd: a network that can be cut, or swallow what is said."""

from __future__ import annotations

import asyncio
from typing import Self


class Relay:
    """`async with` runs it."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """`port` is etcd's; `host` is where this listens."""
        self._host = host
        self._target = port
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.swallows_answers = False

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self.port}/crossgate"

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._copy(reader, far_writer, answers=False))
                    tasks.create_task(self._copy(far_reader, writer, answers=True))
            finally:
                far_writer.transport.abort()
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            pass  # it was cut, or one of the sides ended it
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(65536):
            if not (answers and self.swallows_answers):
                writer.write(data)
                await writer.drain()
        raise ConnectionError("ended")
