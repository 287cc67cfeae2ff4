"""Figures whose source may block: sampled at a slow pace beside the event loop, read at scrapes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.telemetry.side_thread import SideThread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Sampled(Generic[T]):
    """`latest` is what `take` returned last: nothing before it did, and nothing when it failed."""

    def __init__(self, name: str, take: Callable[[], Sequence[T]], period_s: float) -> None:
        self.latest: Sequence[T] = ()
        self._name = name
        self._take = take
        self._period_s = period_s

    async def run(self) -> None:
        """Sample until cancelled, the first time at once. A source that hangs leaves what is known."""
        thread = SideThread(self._name)
        try:
            while True:
                try:
                    self.latest = await thread.call(self._take)
                except Exception:
                    self.latest = ()
                    _log.warning("cannot sample %s", self._name, exc_info=True)
                await asyncio.sleep(self._period_s)
        finally:
            thread.close()
