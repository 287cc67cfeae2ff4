"""What takes time in a version's life: fetching its files, loading it into a worker, unloading it.

It changes no record but through its return values and exceptions; when to try again is counted here, per
version and slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from gateway.lifecycle.loading import load_instance, servable_spec, unload_instance
from gateway.scheduling.decision import NEVER
from gateway.workerpool.backoff import Backoff
from gateway.workerpool.link import RequestRefused, WorkerLost
from registry.fetching import FetchFailed, fetch

if TYPE_CHECKING:
    from gateway.clock import Clock
    from gateway.config.document import ModelDocument
    from gateway.lifecycle.loading import LoadedInstance
    from gateway.lifecycle.record import InstanceRecord, VersionRecord
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.seam import Link
    from registry.fetching import Fetched

log = logging.getLogger(__name__)

FETCHING = ""  # in place of a slot: of fetching itself
_FETCHES = 4  # at a time: they read whole files


class LoadFailed(Exception):
    """`retry_ns` is when to try again, NEVER where that cannot help. `lost`: the worker ended meanwhile, for
    the `failures`-th time in a row.
    """

    def __init__(self, reason: str, retry_ns: int, *, lost: bool = False, failures: int = 0) -> None:
        super().__init__(reason)
        self.retry_ns = retry_ns
        self.lost = lost
        self.failures = failures


class LinkGone(Exception):
    """The slot's worker went away for another reason than this load."""


class Loader:
    def __init__(self, clock: Clock, pool: Pool) -> None:
        self.links: dict[str, Link] = {}  # {slot name: link}, of workers that are up
        self._clock = clock
        self._pool = pool
        self._backoffs: dict[tuple[str, str], Backoff] = {}  # {(key, slot): backoff}
        # {slot name: held by the load that its worker is at}: who is alone is who has ended the worker
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._fetches = asyncio.Semaphore(_FETCHES)

    async def fetch(self, record: VersionRecord) -> Fetched:
        """Return a version's files, verified.

        Raises:
            LoadFailed
        """
        source = record.source
        try:
            async with self._fetches:
                fetched = await asyncio.to_thread(fetch, source.source, source.digest)
        except FetchFailed as error:
            raise self._failed(record.key, FETCHING, str(error), retryable=error.retryable) from error
        self._backoffs.pop((record.key, FETCHING), None)
        return fetched

    async def load(
        self, document: ModelDocument, record: VersionRecord, instance: InstanceRecord
    ) -> LoadedInstance:
        """Load, probe and warm up a version in a slot's worker; one after the other for each slot.

        Raises:
            LoadFailed
            LinkGone
        """
        slot = instance.placed.slot
        async with self._turns[slot]:
            link, there = self.links.get(slot), self._pool.slots.get(slot)
            if link is None or there is None:
                raise LinkGone
            try:
                spec = servable_spec(document, record.source, instance.placed, there)
                loaded = await load_instance(link, document, spec)
            except RequestRefused as error:
                raise self._failed(record.key, slot, str(error), retryable=error.retryable) from error
            except WorkerLost as error:
                if self.links.get(slot) is link:
                    del self.links[slot]  # the next load is not to be blamed for the link's end
                if not error.begun:  # another gateway's load, or a run, ended the worker
                    raise LinkGone from error
                reason = f"its worker was lost while loading: {error}"
                raise self._failed(record.key, slot, reason, retryable=True, lost=True) from error
            except TimeoutError as error:
                if slot in self._pool.workers:
                    self._pool.workers[slot].kill(f"loading {record.model} version {record.version} hangs")
                raise self._failed(record.key, slot, "loading took too long", retryable=True) from error
        self._backoffs.pop((record.key, slot), None)
        return loaded

    def refused(self, record: VersionRecord, slot: str, reason: str) -> LoadFailed:
        """Count a load that was not even tried as one that failed."""
        return self._failed(record.key, slot, reason, retryable=True)

    def _failed(self, key: str, slot: str, reason: str, *, retryable: bool, lost: bool = False) -> LoadFailed:
        backoff = self._backoffs.setdefault((key, slot), Backoff(first_s=1.0, limit_s=60.0))
        wait_s = backoff.after_s(0.0) or 0.5
        retry_ns = self._clock.now_ns() + int(wait_s * 1e9) if retryable else NEVER
        return LoadFailed(reason, retry_ns, lost=lost, failures=backoff.failures)

    async def unload(self, record: VersionRecord, instance: InstanceRecord) -> None:
        """Unload a version from a slot's worker, if that is there. What fails is logged: the worker forgets
        everything at its end.
        """
        link = self.links.get(instance.placed.slot)
        if link is None:
            return
        try:
            await unload_instance(link, instance.servable_id)
        except (WorkerLost, RequestRefused, TimeoutError) as error:
            log.info("unloading model %s version %s: %s", record.model, record.version, error)

    def forget(self, record: VersionRecord) -> None:
        """Forget how often a version failed."""
        for slot in (FETCHING, *record.instances):
            self._backoffs.pop((record.key, slot), None)
