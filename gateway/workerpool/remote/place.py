"""Where a slot's pool is to be found now, as its registration says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.workerpool.remote.way import Way


class Place:
    """`way` is None while nobody is to connect; an established link is not touched by that."""

    def __init__(self, way: Way | None) -> None:
        self._way = way
        self._moved = asyncio.Event()

    @property
    def way(self) -> Way | None:
        return self._way

    def move(self, way: Way | None) -> None:
        """From now on the pool is there; whoever waits before the next try does not wait any longer."""
        if str(way) != str(self._way):
            self._moved.set()
        self._way = way

    async def wait_moved(self, timeout_s: float | None) -> None:
        """Wait until it has moved since this was called last, or for so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._moved.wait()
        except TimeoutError:
            pass
        self._moved.clear()
