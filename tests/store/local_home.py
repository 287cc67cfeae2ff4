"""What tests of the store in a file share."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

from store_home import LIMIT_S, values

from gateway.config.store.store import Span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.config.store.store import Change, Store

MODELS = Span.folder("models")


class FakeClock:
    """Time of leases and of their keepers, moved by hand."""

    def __init__(self, boot: str = "this boot") -> None:
        self.boot = boot
        self.ns = 5_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


async def held(store: Store) -> dict[str, bytes]:
    return values((await store.read(MODELS)).entries)


async def until_away(store: Store, watch: AsyncIterator[Change]) -> tuple[str, asyncio.Future[Change]]:
    """Return why, once a watch has noticed it, and what waits for its next change."""
    waiting = asyncio.ensure_future(anext(watch))
    async with asyncio.timeout(LIMIT_S):
        while not store.away:
            await asyncio.wait({waiting}, timeout=0.01)
            assert not waiting.done(), "it told a change of a store that is away"
    return store.away, waiting


def back_up(file: Path, target: Path) -> Path:
    """As `sqlite3 store.db ".backup target"` does."""
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target
