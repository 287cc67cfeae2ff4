"""Fetches and loads that are under way, and what becomes of their versions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.lifecycle.loader import LinkGone, LoadFailed
from gateway.lifecycle.record import InstanceState
from gateway.scheduling.decision import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.lifecycle.hosts import Hosts
    from gateway.lifecycle.loader import Loader
    from gateway.lifecycle.loading import LoadedInstance
    from gateway.lifecycle.placer import Placer
    from gateway.lifecycle.record import InstanceRecord, VersionRecord
    from gateway.lifecycle.rooms import Rooms
    from gateway.lifecycle.routes import ServedModel

log = logging.getLogger(__name__)

# A version that served before keeps its requests waiting for so many loads in a row that lose their worker.
LOST_LOADS = 3


class Loads:
    """`ended` is called with the model after each of them. What failed stands in the records, with the time
    at which to try again; nothing is raised.
    """

    def __init__(
        self,
        clock: Clock,
        loader: Loader,
        placer: Placer,
        hosts: Hosts,
        rooms: Rooms,
        ended: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._loader = loader
        self._placer = placer
        self._hosts = hosts
        self._rooms = rooms
        self._ended = ended

    async def fetch(self, served: ServedModel, record: VersionRecord) -> None:
        """Fetch a version's files, and place it."""
        try:
            fetched = await self._loader.fetch(record)
        except LoadFailed as error:
            record.fetch = InstanceState.FAILED
            record.fetch_retry_ns = error.retry_ns
            record.reason = str(error)
            log.error(
                "model %s version %s cannot be fetched: %s",
                record.model,
                record.version,
                record.reason,
                extra=served.about(record),
            )
        else:
            record.fetch = InstanceState.READY
            record.reason = ""
            record.size_bytes = fetched.size_bytes
            record.fetched(fetched.path, fetched.fingerprint)
            self._placer.place(served, record)
        self._ended(served.model)

    async def load(self, served: ServedModel, record: VersionRecord, slot: str) -> None:
        """Load a version on one slot."""
        instance, model = record.instances[slot], served.desired
        began_ns = self._clock.now_ns()
        try:
            if model is None:
                raise LinkGone
            loaded = await self._loader.load(model.document, record, instance)
        except LinkGone:
            instance.state = InstanceState.ABSENT
        except LoadFailed as error:
            self._fail(served, record, instance, error)
        else:
            record.load_ns = self._clock.now_ns() - began_ns
            self._take(served, record, instance, loaded)
        self._ended(served.model)

    def refuse(self, served: ServedModel, record: VersionRecord, slot: str, reason: str) -> None:
        """A load is not even tried: it counts as one that failed."""
        self._fail(served, record, record.instances[slot], self._loader.refused(record, slot, reason))

    def _fail(
        self, served: ServedModel, record: VersionRecord, instance: InstanceRecord, error: LoadFailed
    ) -> None:
        instance.state = InstanceState.FAILED
        instance.reason = str(error)
        instance.retry_ns = error.retry_ns
        log.error(
            "model %s version %s failed to load on %s: %s",
            record.model,
            record.version,
            instance.placed.slot,
            instance.reason,
            extra=served.about(record),
        )
        patient = instance.hopeful = error.lost and error.failures < LOST_LOADS
        if not patient and all(each.state is InstanceState.FAILED for each in record.instances.values()):
            self._hosts.withdraw(record, instance.reason)
        self._hosts.complete(served, record)
        self._ended(served.model)

    def _take(
        self, served: ServedModel, record: VersionRecord, instance: InstanceRecord, loaded: LoadedInstance
    ) -> None:
        instance.state = InstanceState.READY
        instance.reason = ""
        instance.hopeful = False
        instance.servable_id = loaded.servable_id
        instance.retry_ns = NEVER
        slot = instance.placed.slot
        record.loaded[slot] = loaded
        self._rooms.learn(record, slot, loaded.memory_bytes, self._clock.now_ns())
        if record.servable is not None:
            self._hosts.host(record, instance)
        self._hosts.complete(served, record)
