"""The decision: which queue runs next on a slot, how much of it, now or later. A pure function of what it is
given.

In this order:
1. A suspect (a request whose batch was lost) runs alone on a slot that has nothing else; until then the slot
drains. 2. What cannot finish in time even at the fastest recent speed is not started: it is left to a faster
slot or to its deadline. 3. Priority band, then the model that has used least of the slot, then the nearest
deadline, then the oldest. 4. The largest batch that its size, its bytes and the nearest deadline in it allow;
shared with other idle slots where that ends
   sooner.
5. Nothing waits while the slot is idle, unless the model's `max_queue_delay` says so. On a busy slot a batch
is staged when it is
   full or the slot is about to be free, so that late arrivals still join it; and not at all where another
   slot would finish it sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.scheduling.cost import Cost

NEVER = (1 << 63) - 1

# How long before the running batch ends the next one is handed over, to hide the hand-over behind the run.
LEAD_NS = 300_000
# A batch is split between idle slots only where the whole then ends at least this much sooner.
SPLIT_GAIN = 0.8


class Waiting(Protocol):
    """What is looked at of one waiting request."""

    @property
    def rows(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def deadline_ns(self) -> int: ...
    @property
    def enqueued_ns(self) -> int: ...


class Entry(NamedTuple):
    """A waiting request as plain data: for tables of snapshots."""

    rows: int
    size_bytes: int
    deadline_ns: int
    enqueued_ns: int


class Elsewhere(NamedTuple):
    """Another slot that serves the same queue: when it can start a batch, whether it is idle now, and its
    cost.
    """

    ready_ns: int
    idle: bool
    cost: Cost


class QueueView(NamedTuple):
    """A queue as this slot sees it. `entries` holds no more than one batch can take, `waiting` counts all.

    `width` is the credits that one run takes; `room` how many more runs of this servable the slot may hold.
    `even`, where it is not 0, is the number of rows and the entries' order is by time: then no deadline is
    before `due_ns`, and all entries are of one size.
    """

    entries: Sequence[Waiting]
    waiting: int
    band: int
    used_ns: float
    max_rows: int
    max_delay_ns: int
    width: int
    room: int
    cost: Cost
    elsewhere: Sequence[Elsewhere] = ()
    alone: bool = False
    even: int = 0
    due_ns: int = 0


class SlotView(NamedTuple):
    """The slot. `ready_ns` is when a run that is sent now could start; `in_flight` counts the batches that
    it holds; `alone`: one of them is a suspect.
    """

    credits: int
    in_flight: int
    idle: bool
    ready_ns: int
    max_batch_bytes: int
    alone: bool = False


class Run(NamedTuple):
    """Run these entries of that queue now. `reason` says why the batch was closed."""

    queue: int
    picks: Sequence[int]
    reason: str


class WaitUntil(NamedTuple):
    """Nothing now; ask again at this time, or when something changes."""

    at_ns: int


class Idle(NamedTuple):
    """Nothing until something changes."""


IDLE = Idle()
Decision = Run | WaitUntil | Idle


def decide(now_ns: int, slot: SlotView, queues: Sequence[QueueView]) -> Decision:
    """Return what this slot does next."""
    if slot.alone:
        return IDLE  # whatever ran beside a suspect could be what ends the worker
    suspects = [i for i, queue in enumerate(queues) if queue.alone and queue.entries]
    if suspects:
        first = min(suspects, key=lambda i: queues[i].entries[0].enqueued_ns)
        return Run(first, (0,), "suspect") if slot.in_flight == 0 and slot.credits > 0 else IDLE
    best: tuple[tuple[int, float, int, int], Run] | None = None
    wait_ns = NEVER
    for i, queue in enumerate(queues):
        if queue.room <= 0 or not _has_credits(slot, queue):
            continue
        decision = _consider(now_ns, slot, queue, i)
        if isinstance(decision, WaitUntil):
            wait_ns = min(wait_ns, decision.at_ns)
        elif isinstance(decision, Run):
            head = queue.entries[decision.picks[0]]
            rank = (queue.band, queue.used_ns, head.deadline_ns, head.enqueued_ns)
            if best is None or rank < best[0]:
                best = (rank, decision)
    if best is not None:
        return best[1]
    return WaitUntil(wait_ns) if wait_ns != NEVER else IDLE


def _has_credits(slot: SlotView, queue: QueueView) -> bool:
    # what is wider than a gateway's whole share still runs, alone
    return slot.credits >= queue.width or (slot.in_flight == 0 and slot.credits > 0)


def _consider(now_ns: int, slot: SlotView, queue: QueueView, index: int) -> Decision:
    """Return what this queue would do if the slot were its own."""
    start_ns = max(now_ns, slot.ready_ns)
    closed = _even(start_ns, slot, queue) if queue.even else None
    if closed is None:
        viable = [
            i
            for i, entry in enumerate(queue.entries)
            if entry.deadline_ns >= start_ns + queue.cost.floor_ns and entry.rows
        ]
        if not viable:
            return IDLE
        closed = _largest(start_ns, slot, queue, viable)
    picks, rows, reason = closed
    full = reason != "all"
    if not slot.idle:
        return _stage(now_ns, slot, queue, index, Run(index, picks, reason if full else "idle"), rows, full)
    if full:
        return Run(index, picks, reason)
    if queue.max_delay_ns:
        oldest_ns = min(queue.entries[i].enqueued_ns for i in picks)
        nearest_ns = min(queue.entries[i].deadline_ns for i in picks)
        latest_ns = min(oldest_ns + queue.max_delay_ns, int(nearest_ns - queue.cost.predict_ns(rows + 1)))
        if latest_ns > now_ns:
            return WaitUntil(latest_ns)
        return Run(index, picks, "delay")
    return Run(index, _share(now_ns, queue, picks, rows), "idle")


def _even(start_ns: int, slot: SlotView, queue: QueueView) -> tuple[Sequence[int], int, str] | None:
    """Return what `_largest` would, without looking at each entry; None where deadlines are near."""
    each, entries = queue.even, queue.entries
    by_rows = max(queue.max_rows // each, 1)
    size_bytes = entries[0].size_bytes
    by_bytes = max(slot.max_batch_bytes // size_bytes, 1) if size_bytes else by_rows
    count = min(len(entries), by_rows, by_bytes)
    rows = count * each
    if queue.due_ns < start_ns + max(queue.cost.floor_ns, queue.cost.predict_ns(rows)):
        return None
    if count < len(entries):
        return range(count), rows, "full" if count == by_rows else "bytes"
    return range(count), rows, "full" if rows >= queue.max_rows else "all"


def _largest(
    start_ns: int, slot: SlotView, queue: QueueView, viable: Sequence[int]
) -> tuple[Sequence[int], int, str]:
    """Return the largest batch of viable entries, its rows, and what closed it ('all' when nothing was left
    out).
    """
    picks: list[int] = []
    rows = size_bytes = 0
    nearest_ns = NEVER
    for i in viable:
        entry = queue.entries[i]
        if picks:
            if rows + entry.rows > queue.max_rows:
                return picks, rows, "full"
            if size_bytes + entry.size_bytes > slot.max_batch_bytes:
                return picks, rows, "bytes"
            nearest = min(nearest_ns, entry.deadline_ns)
            if nearest != NEVER and start_ns + queue.cost.predict_ns(rows + entry.rows) > nearest:
                return picks, rows, "deadline"
        picks.append(i)
        rows += entry.rows
        size_bytes += entry.size_bytes
        nearest_ns = min(nearest_ns, entry.deadline_ns)
    return picks, rows, "full" if rows >= queue.max_rows else "all"


def _stage(
    now_ns: int, slot: SlotView, queue: QueueView, index: int, run: Run, rows: int, full: bool
) -> Decision:
    """Return whether to hand a busy slot its next batch already."""
    here_ns = slot.ready_ns + queue.cost.predict_ns(rows)
    for other in queue.elsewhere:
        if max(other.ready_ns, now_ns) + other.cost.predict_ns(rows) < here_ns:
            return IDLE  # that slot takes it, now or when it is free
    if full or slot.ready_ns - now_ns <= LEAD_NS:
        return run
    return WaitUntil(slot.ready_ns - LEAD_NS)


def _share(now_ns: int, queue: QueueView, picks: Sequence[int], rows: int) -> Sequence[int]:
    """Return the part of a batch that this slot takes when others are idle too: what lets all end
    together.
    """
    idle = [other for other in queue.elsewhere if other.idle]
    if not idle or len(picks) < 2 or not queue.cost.per_row_ns:
        return picks
    speeds = [1 / other.cost.per_row_ns for other in idle if other.cost.per_row_ns]
    speed = 1 / queue.cost.per_row_ns
    part = max(round(len(picks) * speed / (speed + sum(speeds))), 1)
    part_rows = sum(queue.entries[i].rows for i in picks[:part])
    whole_ns = queue.cost.fixed_ns + queue.cost.per_row_ns * rows
    part_ns = queue.cost.fixed_ns + queue.cost.per_row_ns * part_rows
    return picks[:part] if part_ns < SPLIT_GAIN * whole_ns else picks
