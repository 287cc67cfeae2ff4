"""What a watch has learnt and nobody has taken yet, as one change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.config.store.store import Change

if TYPE_CHECKING:
    from gateway.config.store.store import Entry


class News:
    """Never more than the watched span holds, however slow the reader is: later changes of a key replace
    earlier ones.
    """

    def __init__(self) -> None:
        self._revision = 0
        self._resync = False
        self._puts: dict[str, Entry] = {}
        self._deletes: set[str] = set()
        self._waiting = asyncio.Event()

    def add(self, change: Change) -> None:
        if change.resync:
            self._puts.clear()
            self._deletes.clear()
            self._resync = True
        self._revision = change.revision
        for entry in change.puts:
            self._puts[entry.key] = entry
            self._deletes.discard(entry.key)
        for key in change.deletes:
            self._puts.pop(key, None)
            if not self._resync:
                self._deletes.add(key)
        self._waiting.set()

    def wake(self) -> None:
        """Let `wait` return though there may be nothing: no more will come."""
        self._waiting.set()

    async def wait(self) -> None:
        await self._waiting.wait()

    def take_nowait(self) -> Change | None:
        if not self._puts and not self._deletes and not self._resync:
            return None
        change = Change(
            self._revision,
            tuple(self._puts[key] for key in sorted(self._puts)),
            tuple(sorted(self._deletes)),
            self._resync,
        )
        self._puts.clear()
        self._deletes.clear()
        self._resync = False
        self._waiting.clear()
        return change
