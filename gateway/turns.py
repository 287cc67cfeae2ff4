"""Long work on the event loop lets others have their turn: requests go first."""

from __future__ import annotations

import asyncio
import time

SLICE_S = 0.001


class Turn:
    """One stretch of work on the loop. Ask to `give_way` between its steps, where nothing is half done: after
    every `SLICE_S` of work all that is ready runs once.
    """

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    async def give_way(self) -> None:
        if time.monotonic() - self._began_s > SLICE_S:
            await asyncio.sleep(0)
            self._began_s = time.monotonic()
