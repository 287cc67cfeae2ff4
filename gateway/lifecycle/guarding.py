"""Follows the access documents of a store, and has them in force while the gateway's document says
`enforce`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.config import keys
from gateway.config.access_document import validate_access
from gateway.config.errors import DocumentInvalid
from gateway.config.store.store import StoreRefused
from gateway.lifecycle.last_good import LastGoodUnusable, Saved
from gateway.lifecycle.store_source import parse_value
from gateway.workerpool.backoff import Backoff

if TYPE_CHECKING:
    from gateway.admission.access import Access
    from gateway.config.access_document import AccessDocument
    from gateway.config.store.store import Change, Store
    from gateway.lifecycle.last_good import LastGood

log = logging.getLogger(__name__)


class Guarding:
    """Documents that are not valid allow nothing new: the one before stays. Before the store was first heard,
    those on disk hold, and without any an enforcing gateway lets nobody in.
    """

    def __init__(self, store: Store, access: Access, last_good: LastGood) -> None:
        self.problems: dict[str, str] = {}  # {key: what is wrong with it}
        self._store = store
        self._access = access
        self._last_good = last_good
        self._documents: dict[str, AccessDocument] = {}  # {key: document}
        self._enforced = False
        self._on_disk: set[str] = set()  # keys

    def enforce(self, *, enforced: bool) -> None:
        """Say whether access is enforced; at once."""
        if enforced != self._enforced:
            log.warning("access is %s", "enforced" if enforced else "open to everybody")
        self._enforced = enforced
        self._apply()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._load()
        backoff = Backoff(first_s=1.0, limit_s=30.0)
        while True:
            began_s = time.monotonic()
            try:
                async with aclosing(self._store.watch(keys.ACCESS)) as watch:
                    async for change in watch:
                        self._take(change)
                        self._apply()
                        await self._save(change)
            except StoreRefused as error:
                log.error("the access documents in %s: %s; those before stay", self._store.where, error)
            await asyncio.sleep(backoff.after_s(time.monotonic() - began_s))

    def _apply(self) -> None:
        self._access.replace(list(self._documents.values()), enforced=self._enforced)

    def _take(self, change: Change) -> None:
        if change.resync:
            there = {entry.key for entry in change.puts}
            for key in self._documents.keys() - there:
                del self._documents[key]
            self.problems = {key: why for key, why in self.problems.items() if key in there}
        for key in change.deletes:
            self._documents.pop(key, None)
            self.problems.pop(key, None)
        for entry in change.puts:
            self._put(entry.key, entry.value)

    def _put(self, key: str, value: bytes) -> None:
        names = keys.named_by(key, keys.ACCESS)
        try:
            name = names[0] if names is not None and len(names) == 1 else None
            self._documents[key] = validate_access(parse_value(value), name=name)
        except DocumentInvalid as error:
            self.problems[key] = str(error)
            log.error("%s is not valid, the last good one, if any, stays: %s", key, error)
        else:
            self.problems.pop(key, None)

    async def _load(self) -> None:
        try:
            saved = await asyncio.to_thread(self._last_good.load)
        except LastGoodUnusable:
            return  # the follower of the models says so
        for each in saved:
            if each.key in keys.ACCESS and each.value is not None:
                self._put(each.key, each.value)
                self._on_disk.add(each.key)
        self._apply()

    async def _save(self, change: Change) -> None:
        saved = [Saved(e.key, e.revision, e.value) for e in change.puts if e.key not in self.problems]
        gone = set(change.deletes)
        if change.resync:  # a token that was taken away must not be back after a restart
            gone |= self._on_disk - {entry.key for entry in change.puts}
        saved += [Saved(key, change.revision, None) for key in gone]
        self._on_disk = (self._on_disk | {each.key for each in saved}) - gone
        try:
            await asyncio.to_thread(self._last_good.save, saved)
        except LastGoodUnusable as error:
            log.error("%s", error)
