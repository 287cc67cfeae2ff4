"""A network that drops packets, as both ends of its connections see it: nothing arrives, and nobody is told.
What TCP has not delivered it delivers afterwards, if the connection still lives.
"""

from __future__ import annotations

import asyncio

from etcd_relay import Relay


class HoldingRelay(Relay):
    """Beside being cut, it can hold everything back."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._passes = asyncio.Event()
        self._passes.set()

    def hold(self) -> None:
        self._passes.clear()

    def release(self) -> None:
        self._passes.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._passes.is_set():
            self._connections.add(task := asyncio.current_task())  # to be cut with the others
            try:
                await self._passes.wait()
            except asyncio.CancelledError:
                writer.transport.abort()
                return
            finally:
                self._connections.discard(task)
        await super()._accepted(reader, writer)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(65536):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
        await self._passes.wait()
        raise ConnectionError("ended")
