"""Ending calls: every one is answered once, released once, and accounted for once.

A call that is not settled is held here, by its id. Whatever ends it (its outputs, an error, expiry,
cancellation) goes through `Settlement`, which takes it out of its queue or batch, gives back what it held,
counts it, and tells its chronicle.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

from gateway.call import BatchReply, Reply
from gateway.chronicle import Chronicle
from gateway.errors import Bug, Cancelled, Expired, GatewayError
from gateway.scheduling.item import ItemState
from gateway.scheduling.layout import check_rows, scatter, split
from gateway.telemetry.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.admission.admission import Admission
    from gateway.call import Call, CallId, Tensor
    from gateway.clock import Clock
    from gateway.routing.table import RouteTable
    from gateway.scheduling.item import QueueItem
    from gateway.scheduling.layout import Plan
    from gateway.scheduling.slot import Batch
    from gateway.servable import Servable
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.tracing import Tracing
    from wire.frames import Done

log = logging.getLogger(__name__)


class DeadlineExceeded(Expired):
    def __init__(self, model: str, where: str, waited_ns: int) -> None:
        super().__init__(
            f"model {model}: the deadline passed {where}, {waited_ns / 1e6:.1f} ms after arrival"
        )


class CallerGone(Cancelled):
    def __init__(self) -> None:
        super().__init__("the caller went away")


class Settlement:
    """`on_answered` hears of items that ran, `on_abandoned` of one that ended otherwise, `on_deserted` of a
    batch none of whose members waits any more. `table` is where calls go now.
    """

    def __init__(
        self,
        clock: Clock,
        admission: Admission,
        accounts: Accounts,
        tracing: Tracing,
        on_answered: Callable[[Sequence[QueueItem], int], None],
        on_abandoned: Callable[[QueueItem], None],
        on_deserted: Callable[[Batch], None],
        table: Callable[[], RouteTable],
    ) -> None:
        self.items: dict[CallId, QueueItem] = {}  # every call that is not settled
        self.chronicle = Chronicle(clock, tracing, table)
        self._admission = admission
        self._accounts = accounts
        self._on_answered = on_answered
        self._on_abandoned = on_abandoned
        self._on_deserted = on_deserted
        self._epoch_offset_ns = time.time_ns() - clock.now_ns()

    def hold(self, servable: Servable, items: Sequence[QueueItem]) -> None:
        """Take charge of calls that were queued, whose bytes admission has counted."""
        held = self.items
        for item in items:
            held[item.id] = item
        servable.unsettled += len(items)

    def refuse(self, call: Call, error: GatewayError, version: str, revision: int, now_ns: int) -> Reply:
        """Account for a call that is not queued; return its answer. `version` is '' where it was not
        routed.
        """
        _let_go(error)
        outcome = Outcome.of(error)
        account = self._accounts.find(call.model, version or call.version)
        account.record_failure(outcome, now_ns - call.arrived_ns, rejected=True)
        self.chronicle.refused(call, error, outcome, version, revision, now_ns)
        return Reply(call, call.model, version, revision, error=error)

    def answer(self, batch: Batch, outputs: Sequence[Tensor], done: Done, now_ns: int) -> int:
        """Settle the members that still wait with their parts of the outputs, and account for the run; return
        how many.

        Raises:
            OutputRowsWrong: the outputs are not the rows of the inputs; nothing was settled.
        """
        servable = servable_of(batch.items[0])
        plan = batch.plan
        if plan is not None and plan.plain:
            settled = self._answer_at_once(batch, plan, servable, outputs)
        else:
            settled = self._answer_singly(batch, servable, outputs)
        items = self.items
        held_bytes = 0
        for item in settled:
            item.state = ItemState.SETTLED
            item.batch = None  # a cycle otherwise, which would keep the tensors until the next collection
            held_bytes += item.held_bytes
            del items[item.id]
        servable.unsettled -= len(settled)
        self._admission.held_bytes -= held_bytes
        started_ns = done.started_ns
        total_ns = [now_ns - item.arrived_ns for item in settled]
        servable.account.record_batch(
            [item.rows for item in settled],
            [started_ns - item.enqueued_ns for item in settled],
            total_ns,
            done.ran_ns - started_ns,
            done.run_ns,
            done.ended_ns - done.ran_ns - done.run_ns,
            batch.close_reason,
            batch.hosting.slot.device,
            (now_ns + self._epoch_offset_ns) // 1_000_000,
            batch.rows,
        )
        self._on_answered(settled, now_ns)
        self.chronicle.answered(batch, servable, settled, total_ns, done)
        return len(settled)

    def _answer_at_once(
        self, batch: Batch, plan: Plan, servable: Servable, outputs: Sequence[Tensor]
    ) -> list[QueueItem]:
        """Answer a batch whose members all have one plan, and are to get all outputs."""
        check_rows(outputs, batch.rows, plan)
        rows = plan.rows
        waiting = [item for item in batch.items if item.state != ItemState.SETTLED]
        if len(waiting) == len(batch.items):
            starts = list(range(0, batch.rows, rows)) if rows else [0]
        else:
            starts = [i * rows for i, item in enumerate(batch.items) if item.state != ItemState.SETTLED]
        calls = [item.call for item in waiting]
        if calls:
            deliver_batch(
                BatchReply(
                    calls,
                    starts,
                    [rows] * len(calls),
                    batch.rows if plan.batchable else 0,
                    servable.model,
                    servable.version,
                    plan.revision,
                    outputs,
                )
            )
        return waiting

    def _answer_singly(self, batch: Batch, servable: Servable, outputs: Sequence[Tensor]) -> list[QueueItem]:
        answers = scatter(outputs, [item.plan for item in batch.items])
        model, version = servable.model, servable.version
        settled = []
        replies = []
        for item, answer in zip(batch.items, answers, strict=True):
            if item.state != ItemState.SETTLED:
                settled.append(item)
                replies.append(Reply(item.call, model, version, item.plan.revision, answer))
        deliver(replies)
        return settled

    def fail(
        self, items: Iterable[QueueItem], error: GatewayError, now_ns: int, done: Done | None = None
    ) -> None:
        """Settle those of the items that still wait, with an error. `done` is the worker's word about their
        batch, if it has spoken.
        """
        _let_go(error)
        replies = []
        for item in items:
            if item.state != ItemState.SETTLED:
                batch = item.batch
                self._abandon(item)
                self._record_failure(item, batch, error, now_ns, done)
                servable = servable_of(item)
                replies.append(
                    Reply(item.call, servable.model, servable.version, servable.revision, error=error)
                )
        deliver(replies)

    def expire(self, items: Iterable[QueueItem], where: str, now_ns: int) -> None:
        for item in items:
            waited_ns = now_ns - item.call.arrived_ns
            self.fail([item], DeadlineExceeded(item.call.model, where, waited_ns), now_ns)

    def cancel(self, ids: Iterable[CallId], now_ns: int) -> None:
        """Forget calls whose callers went away: nobody is answered. Unknown ids are settled already."""
        for id_ in ids:
            item = self.items.get(id_)
            if item is not None:
                batch = item.batch
                self._abandon(item)
                self._record_failure(item, batch, CallerGone(), now_ns)

    def _release(self, item: QueueItem) -> None:
        item.state = ItemState.SETTLED
        item.batch = None  # a cycle otherwise, which would keep the tensors until the next collection
        servable_of(item).unsettled -= 1
        self._admission.held_bytes -= item.held_bytes
        del self.items[item.id]

    def _abandon(self, item: QueueItem) -> None:
        """Take an item that gets no outputs out of its queue or batch."""
        if item.state == ItemState.WAITING:
            servable_of(item).queues.remove(item)
        batch = item.batch
        self._release(item)
        if batch is not None and all(mate.state == ItemState.SETTLED for mate in batch.items):
            self._on_deserted(batch)
        self._on_abandoned(item)

    def _record_failure(
        self,
        item: QueueItem,
        batch: Batch | None,
        error: GatewayError,
        now_ns: int,
        done: Done | None = None,
    ) -> None:
        servable, outcome = servable_of(item), Outcome.of(error)
        servable.account.record_failure(outcome, now_ns - item.arrived_ns)
        self.chronicle.failed(item, servable, batch, error, outcome, done, now_ns)


def servable_of(item: QueueItem) -> Servable:
    return item.servable  # type: ignore[return-value]  # scheduling does not know what a servable is


def _let_go(error: GatewayError) -> None:
    """Forget where an error was raised: a traceback holds frames, those hold calls with all their bytes, and
    a frame that also holds the answer is freed by nothing but a collection of the garbage.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def bug(error: Exception) -> Bug:
    """Log a defect and return what the caller is told of it."""
    told = Bug(uuid.uuid4().hex[:12])
    log.error("bug in the data plane, error id %s", told.error_id, exc_info=error)
    return told


def deliver_batch(reply: BatchReply) -> None:
    """Hand the answers of a batch to the origin of its calls; one by one where there are several."""
    origin = reply.calls[0].origin
    if all(call.origin is origin for call in reply.calls):
        origin.settle_batch(reply)
    else:
        deliver(split(reply))


def deliver(replies: Sequence[Reply]) -> None:
    """Hand replies to the origins of their calls, in one call for each."""
    if not replies:
        return
    origin = replies[0].call.origin
    if all(reply.call.origin is origin for reply in replies):
        origin.settle(replies)
        return
    by_origin: dict[int, list[Reply]] = {}
    for reply in replies:
        by_origin.setdefault(id(reply.call.origin), []).append(reply)
    for group in by_origin.values():
        group[0].call.origin.settle(group)
