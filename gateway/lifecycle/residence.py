"""What stays loaded and what goes: for memory that another needs, or because nobody asks for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.scheduling.decision import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.lifecycle.loads import Loads
    from gateway.lifecycle.record import VersionRecord
    from gateway.lifecycle.rooms import Rooms
    from gateway.lifecycle.routes import ServedModel

log = logging.getLogger(__name__)

ROOM_NS: Final = 50_000_000  # how soon to look again for room that others hold


class Residence:
    """`tenants` gives the models that may take memory. `touch` has a model looked at in the next pass, `wake`
    at a time.
    """

    def __init__(
        self,
        rooms: Rooms,
        loads: Loads,
        tenants: Callable[[], Iterable[ServedModel]],
        touch: Callable[[str], None],
        wake: Callable[[str, int], None],
    ) -> None:
        self._rooms = rooms
        self._loads = loads
        self._tenants = tenants
        self._touch = touch
        self._wake = wake

    def rest(self, served: ServedModel, now_ns: int) -> None:
        """Let go what is loaded on demand and nobody has asked for."""
        document = served.desired.document if served.desired is not None else None
        if document is None or not served.on_demand or document.load.idle_unload_s is None:
            return
        idle_ns = document.load.idle_unload_s * 1_000_000_000
        for record in served.records.values():
            servable = record.servable
            if servable is None or record.leaving or record.draining:
                continue
            until_ns = servable.used_ns + idle_ns
            if until_ns > now_ns or servable.busy:
                self._wake(served.model, max(until_ns, now_ns + ROOM_NS))
            else:
                log.info(
                    "model %s version %s was not asked for",
                    record.model,
                    record.version,
                    extra=served.about(record),
                )
                self._dismiss(served, record)

    def _dismiss(self, served: ServedModel, record: VersionRecord) -> None:
        record.leaving = True
        served.awake -= {record.version}
        served.wanted.pop(record.version, None)

    def has_room(self, served: ServedModel, record: VersionRecord, slot: str, now_ns: int) -> bool:
        """Return whether a version may be loaded on a slot now. If not, room is made for it, or it has
        failed.
        """
        instance = record.instances[slot]
        found = self._rooms.find(record, slot, self._tenants(), now_ns)
        if found.fits:
            instance.no_room_ns = NEVER
            return True
        instance.no_room_ns = min(instance.no_room_ns, now_ns)
        instance.reason = "it waits for memory on its slot"
        if found.reason:
            instance.no_room_ns = NEVER
            self._loads.refuse(served, record, slot, found.reason)
        for tenant in found.evict:
            log.info(
                "model %s version %s makes room on %s for model %s version %s",
                tenant.record.model,
                tenant.record.version,
                slot,
                record.model,
                record.version,
                extra=served.about(record),
            )
            self._dismiss(tenant.served, tenant.record)
            self._touch(tenant.record.model)
        self._wake(record.model, now_ns + ROOM_NS)
        return False

    def relieve(self, now_ns: int) -> None:
        """Make room again on slots where a version took more than it was thought to."""
        for slot, model in list(self._rooms.crowded.items()):
            found = self._rooms.relieve(slot, self._tenants(), now_ns)
            if found.reason:
                log.warning("slot %s is over its memory budget since model %s was loaded", slot, model)
            for tenant in found.evict:
                log.info(
                    "model %s version %s goes from %s, over its memory budget since model %s was loaded",
                    tenant.record.model,
                    tenant.record.version,
                    slot,
                    model,
                    extra=tenant.served.about(tenant.record),
                )
                self._dismiss(tenant.served, tenant.record)
                self._touch(tenant.record.model)
            if slot in self._rooms.crowded:
                self._wake(model, now_ns + ROOM_NS)
