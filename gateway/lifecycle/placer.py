"""Says on which slots a version runs, and whether its files are fetched here for that."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from gateway.lifecycle.placement import PlacementFailed, place
from gateway.lifecycle.record import InstanceRecord, InstanceState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gateway.config.document import ModelDocument
    from gateway.lifecycle.hosts import Hosts
    from gateway.lifecycle.placement import Placed
    from gateway.lifecycle.record import VersionRecord
    from gateway.lifecycle.routes import ServedModel
    from gateway.workerpool.slot import Slot

log = logging.getLogger(__name__)


class Placer:
    """`slots` is looked at as it is at the time; `runtimes` are those of this machine, the node `node`. Until
    `complete`, not all slots are known: what cannot be placed then waits.
    """

    def __init__(self, slots: Mapping[str, Slot], runtimes: Collection[str], node: str, hosts: Hosts) -> None:
        self._slots = slots  # {name: slot}
        self._runtimes = runtimes
        self._node = node
        self._hosts = hosts
        self.complete = True

    def place(self, served: ServedModel, record: VersionRecord) -> None:
        """Give a version the instances that it is to have; what is on other slots of it goes, what stays is
        left alone.
        """
        if served.desired is None:
            return
        try:
            placed = self._placed(served.desired.document, record)
        except PlacementFailed as error:
            if not self.complete and record.servable is None and not record.reason:
                record.unplaced = _waits(error)
            else:
                self._displace(served, record, str(error))
            return
        record.unplaced = ""
        record.reason = "" if not record.quarantined_until_ns else record.reason
        if not record.size_bytes and record.source.path:
            record.size_bytes = _size_bytes(record.source.path)
        before = record.instances
        record.instances = {}
        for each in placed:
            known = before.pop(each.slot, None)
            record.instances[each.slot] = (
                known if known is not None and known.placed == each else InstanceRecord(each)
            )
        for gone in before.values():
            self._hosts.leave(record, gone)

    def skip_fetch(self, served: ServedModel, record: VersionRecord) -> None:
        """Where a version runs only on slots that fetch for themselves, nothing is fetched here."""
        if served.desired is None:
            return
        document = served.desired.document
        record.unplaced = ""
        if not document.instances and not all(slot.fetches for slot in self._slots.values()):
            return
        try:
            placed = self._placed(document, record)
        except PlacementFailed as error:
            if not self.complete:
                record.unplaced = _waits(error)
            return
        if all(self._slots[each.slot].fetches for each in placed):
            record.fetch = InstanceState.READY
            record.reason = ""
            self.place(served, record)

    def _placed(self, document: ModelDocument, record: VersionRecord) -> tuple[Placed, ...]:
        """Raises PlacementFailed."""
        path = record.source.path or record.source.source
        return place(document.instances, path, list(self._slots.values()), self._runtimes, self._node)

    def _displace(self, served: ServedModel, record: VersionRecord, reason: str) -> None:
        """No slot is right for a version: it stays on those that are still there."""
        record.unplaced = ""
        for slot in record.instances.keys() - self._slots.keys():
            self._hosts.leave(record, record.instances.pop(slot))
        if record.servable is not None and not record.instances:
            record.reason = reason
            self._hosts.withdraw(record, reason)
        elif record.servable is None and record.reason != reason:
            record.reason = reason
            log.error(
                "model %s version %s cannot be placed: %s",
                record.model,
                record.version,
                reason,
                extra=served.about(record),
            )


def _waits(error: PlacementFailed) -> str:
    return f"it waits for a slot: {error}"


def _size_bytes(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it is gone; loading it will say so
        return 0
