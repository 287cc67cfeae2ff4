"""Whether a version may be loaded on a slot with a memory budget, and who has to go for it, or has to go
because one took more than it was thought to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gateway.lifecycle.memory import Resident, Room, Stay, make_room
from gateway.lifecycle.record import InstanceState
from gateway.lifecycle.sizes import KnownSizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.lifecycle.record import InstanceRecord, VersionRecord
    from gateway.lifecycle.routes import ServedModel
    from gateway.routing.table import ModelRoute
    from gateway.workerpool.slot import Slot

TURN_NS = 1_000_000_000  # how long what is busy stays at least, where others wait for its room


class Tenant(NamedTuple):
    """A version on a slot, and the model that it is of."""

    served: ServedModel
    record: VersionRecord


@dataclass(frozen=True, slots=True)
class Found:
    """`fits` now; else `evict` goes first, if any. With a `reason` it never fits."""

    fits: bool
    evict: tuple[Tenant, ...] = ()
    reason: str = ""


class Rooms:
    """Decides, and changes nothing but what it has learned. `slots` and `routes` are looked at as they are at
    the time. `crowded` are the slots to be relieved, with the model that was loaded there last.
    """

    def __init__(self, slots: Mapping[str, Slot], routes: Mapping[str, ModelRoute]) -> None:
        self._slots = slots  # {name: slot}
        self._routes = routes  # {model: route}
        self.crowded: dict[str, str] = {}  # {slot name: model}
        self._since_ns: dict[str, int] = {}  # {slot name: since when}, of the crowded ones
        self._sizes = KnownSizes()

    def learn(self, record: VersionRecord, slot: str, size_bytes: int, now_ns: int) -> None:
        """A version was loaded, and took so much: that may be more than there was room for."""
        self._sizes.learn(record.key, slot, size_bytes, now_ns)
        if self._budget(slot) is not None:
            self.crowded[slot] = record.model
            self._since_ns.setdefault(slot, now_ns)

    def relieve(self, slot: str, models: Iterable[ServedModel], now_ns: int) -> Found:
        """Return who has to go from a slot that is over its budget. With a `reason` nothing helps. The slot
        is crowded no longer where it fits, or nothing helps.
        """
        budget = self._budget(slot)
        if budget is None:
            found = Found(fits=True)
        else:
            residents = self._residents(slot, None, self._since_ns[slot], models, now_ns)
            found = _found(make_room(0, budget, [each for each, _ in residents]), residents)
        if found.fits or found.reason:
            del self.crowded[slot], self._since_ns[slot]
        return found

    def find(self, record: VersionRecord, slot: str, models: Iterable[ServedModel], now_ns: int) -> Found:
        """Return whether a version may be loaded on a slot beside what the models have there."""
        budget = self._budget(slot)
        if budget is None:
            return Found(fits=True)
        instance = record.instances[slot]
        residents = self._residents(slot, instance, instance.no_room_ns, models, now_ns)
        there = [resident for resident, _ in residents]
        room = make_room(self._weight(record, slot), budget, there)
        if room.reason and self._sizes.doubt(record.key, now_ns):
            room = make_room(self._weight(record, slot), budget, there)
        return _found(room, residents)

    def _budget(self, slot: str) -> int | None:
        there = self._slots.get(slot)
        return there.memory_bytes if there is not None else None

    def _weight(self, record: VersionRecord, slot: str) -> int:
        """Return the memory that a version takes on a slot: what its worker said, now or before, or else its
        files' size.
        """
        return max(record.size_bytes, self._sizes.of(record.key, slot))

    def _residents(
        self,
        slot: str,
        waiting: InstanceRecord | None,
        since_ns: int,
        models: Iterable[ServedModel],
        now_ns: int,
    ) -> list[tuple[Resident, Tenant]]:
        """Return what takes memory on a slot, or is about to, or has waited for longer than `waiting`, which
        waits `since_ns`. What never stops being busy had its turn once another has waited for as long: both
        are served, and at least half of the time nothing is loaded.
        """
        found = []
        waits_ns = max(now_ns - since_ns, 0)
        for served in models:
            for record in served.records.values():
                instance = record.instances.get(slot)
                if instance is None or instance is waiting:
                    continue
                is_there = instance.state in (InstanceState.LOADING, InstanceState.READY)
                if not is_there and (waiting is None or instance.no_room_ns >= since_ns):
                    continue
                stay = self._stay(served, record, waits_ns, now_ns) if is_there else Stay.BUSY
                used_ns = record.servable.used_ns if record.servable is not None else 0
                resident = Resident(record.key, self._weight(record, slot), used_ns, stay)
                found.append((resident, Tenant(served, record)))
        return found

    def _stay(self, served: ServedModel, record: VersionRecord, waits_ns: int, now_ns: int) -> Stay:
        """Return whether a version may go for one that has waited for so long."""
        if record.leaving or record.draining or served.desired is None:
            return Stay.BUSY if record.servable is not None and record.servable.busy else Stay.GOING
        if not served.on_demand:
            return Stay.FIXED
        servable = record.servable
        if servable is None or not self._is_published(record):
            return Stay.BUSY
        if servable.busy and min(waits_ns, now_ns - record.ready_ns) < _turn_ns(record):
            return Stay.BUSY
        return Stay.IDLE

    def _is_published(self, record: VersionRecord) -> bool:
        """Whether those who waited for a version had it."""
        route = self._routes.get(record.model)
        return route is not None and route.ready.get(record.version) is record.servable


def _turn_ns(record: VersionRecord) -> int:
    return max(TURN_NS, record.load_ns)


def _found(room: Room, residents: Sequence[tuple[Resident, Tenant]]) -> Found:
    evict = tuple(tenant for resident, tenant in residents if resident.key in room.evict)
    return Found(room.fits, evict, room.reason)
