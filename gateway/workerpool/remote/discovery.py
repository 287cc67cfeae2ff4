"""Follows the registrations of pools in the store and makes slots of them.

While the store is away nothing changes. What another pool's registration takes over is decided when the
present link is lost: an established one stays.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.config.keys import WORKERS
from gateway.config.registration import RegistrationInvalid, read_registration
from gateway.config.store.store import StoreRefused
from gateway.workerpool.remote.prospect import Prospect

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.registration import Registration
    from gateway.config.store.store import Change, Entry, Store
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.remote.ways import Ways

log = logging.getLogger(__name__)

_REFUSED_PAUSE_S = 30.0
_MAX_SLOTS = 4096


class Discovery:
    """Adds slots to `pool` and removes them, named `<node>/<slot>`. `problem` is why the registrations cannot
    be read, '' while they can.
    """

    def __init__(self, store: Store, pool: Pool, clock: Clock, ways: Ways) -> None:
        self.problem = ""
        self._store = store
        self._pool = pool
        self._clock = clock
        self._ways = ways
        self._prospects: dict[str, Prospect] = {}  # {key: its slot}
        self._heard = asyncio.Event()  # the store, or that it refuses
        self._malformed: dict[str, str] = {}  # {key: what is wrong}

    @property
    def problems(self) -> dict[str, str]:
        """Return {key: why the slot is not in use, or what is wrong with its registration}."""
        found = {key: each.problem for key, each in self._prospects.items() if each.problem}
        return {**found, **self._malformed}

    async def wait_heard(self) -> None:
        """Wait until the store has been heard, and every slot that is registered in it is in use, or has a
        problem.
        """
        await self._heard.wait()
        for prospect in list(self._prospects.values()):
            await prospect.wait_tried()

    async def run(self) -> None:
        """Follow until cancelled; slots that are in use stay."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    async with aclosing(self._store.watch(WORKERS)) as changes:
                        async for change in changes:
                            self.problem = ""
                            self._see(change, tasks)
                            self._heard.set()
                except StoreRefused as error:
                    self.problem = str(error)
                    self._heard.set()
                    log.error("workers elsewhere cannot be found: %s", error)
                    await asyncio.sleep(_REFUSED_PAUSE_S)

    def _see(self, change: Change, tasks: asyncio.TaskGroup) -> None:
        gone = set(change.deletes)
        if change.resync:
            there = {entry.key for entry in change.puts}
            gone |= (self._prospects.keys() | self._malformed.keys()) - there
        for key in gone:
            self._claim(key, None, tasks)
            self._malformed.pop(key, None)
        for entry in change.puts:
            self._claim(entry.key, self._read(entry), tasks)

    def _read(self, entry: Entry) -> Registration | None:
        """Return a registration; one that is none is reported once."""
        try:
            found = read_registration(entry.key, entry.value)
        except RegistrationInvalid as error:
            if self._malformed.get(entry.key) != str(error):
                log.error("a registration is passed over: %s", error)
            self._malformed[entry.key] = str(error)
            return None
        self._malformed.pop(entry.key, None)
        return found

    def _claim(self, key: str, registration: Registration | None, tasks: asyncio.TaskGroup) -> None:
        prospect = self._prospects.get(key)
        if prospect is not None:
            prospect.claim(registration)
        elif registration is not None and len(self._prospects) < _MAX_SLOTS:
            made = Prospect(registration, self._pool, self._clock, self._ways)
            self._prospects[key] = made
            tasks.create_task(self._follow(key, made), name=f"slot {key}")

    async def _follow(self, key: str, prospect: Prospect) -> None:
        await prospect.follow()
        del self._prospects[key]
