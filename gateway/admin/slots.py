"""The slots of a pool as the admin service shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.view import SlotState

if TYPE_CHECKING:
    from gateway.dataplane import Dataplane
    from gateway.workerpool.pool import Pool


def slot_states(pool: Pool, dataplane: Dataplane, node: str) -> list[SlotState]:
    """Return the state of every slot; `node` is this one."""
    return [_state(name, pool, dataplane, node) for name in pool.slots]


def _state(name: str, pool: Pool, dataplane: Dataplane, node: str) -> SlotState:
    slot, worker, scheduler = pool.slots[name], pool.workers.get(name), dataplane.slots.get(name)
    where = slot.node or node
    limit = slot.memory_bytes
    if worker is None:
        return SlotState(name, where, str(slot.device), "unused", slot.capacity, memory_limit_bytes=limit)
    up = scheduler is not None and scheduler.usable
    return SlotState(
        name,
        where,
        str(slot.device),
        "up" if up else "down",
        slot.capacity,
        reason="" if up else worker.down_reason,
        restarts=worker.restarts,
        pid=worker.pid or 0,
        memory_bytes=worker.resident_bytes,
        memory_limit_bytes=limit,
        batches_in_flight=len(scheduler.in_flight) if scheduler is not None else 0,
        busy_ns=scheduler.busy_ns if scheduler is not None else None,
    )
