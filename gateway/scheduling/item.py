"""One request while it waits and runs."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from gateway.scheduling.decision import NEVER

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.scheduling.layout import Plan
    from gateway.scheduling.queue import RequestQueue
    from gateway.scheduling.slot import Batch
    from gateway.telemetry.trace import SampledContext


class ItemState(enum.IntEnum):
    """WAITING → DISPATCHED → SETTLED; a lost batch puts its members back to WAITING; expiry and cancellation
    settle from anywhere."""

    WAITING = 0
    DISPATCHED = 1
    SETTLED = 2


class QueueItem:
    """A call with what scheduling needs of it. `due_ns` orders items of a band: the deadline, or a far one
    for those without.

    `lost` counts the runs that ended with the worker's death. `trace` is the sampled context, None for most.
    """

    __slots__ = (
        "__weakref__",  # the deadlines must not keep a settled request's tensors
        "arrived_ns",
        "batch",
        "call",
        "deadline_ns",
        "due_ns",
        "enqueued_ns",
        "held_bytes",
        "id",
        "lost",
        "plan",
        "priority",
        "queue",
        "rows",
        "sequence",
        "servable",
        "size_bytes",
        "state",
        "trace",
    )

    def __init__(
        self,
        call: Call,
        servable: object,
        plan: Plan,
        priority: int,
        enqueued_ns: int,
        sequence: int,
        implied_deadline_ns: int,
        deadline_ns: int = NEVER,
        trace: SampledContext | None = None,
        held_bytes: int = 0,
    ) -> None:
        # read once: a native call makes these anew each time
        self.id = call.id
        self.arrived_ns = call.arrived_ns
        self.call = call
        self.servable = servable
        self.plan = plan
        self.rows = plan.rows
        self.size_bytes = plan.size_bytes
        self.held_bytes = held_bytes
        self.priority = priority
        self.enqueued_ns = enqueued_ns
        self.sequence = sequence
        self.deadline_ns = deadline_ns
        self.due_ns = deadline_ns if deadline_ns < implied_deadline_ns else implied_deadline_ns
        self.trace = trace
        self.lost = 0
        self.state = ItemState.WAITING
        self.queue: RequestQueue | None = None
        self.batch: Batch | None = None
