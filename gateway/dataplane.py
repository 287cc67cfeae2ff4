"""The data plane: what happens to a request between the front end and a worker. Read this first.

    on_calls(burst)   each call: admission → routing → the servable's plan → its queue
    _pump             each slot: `decide` picks a queue and a batch; the link carries it to the worker
    on_done           the batch comes back: outputs are split, every member is settled on its own
    on_cancels, _ring cancellations, and the one alarm for deadlines, queue delays and hung runs

Guarantees. Every call is settled exactly once, unless it was cancelled first: then never. A bad, cancelled or
expired member never harms its batch mates. Nothing here awaits, and no coroutine, future or timer exists per
request. All methods run on the loop's thread.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
import uuid
from typing import TYPE_CHECKING

from gateway.call import Reply, Tensor
from gateway.clock import Alarm
from gateway.errors import Bug, Cancelled, Exhausted, Expired, GatewayError, ModelFailure, NotReady
from gateway.routing.table import RouteTable
from gateway.scheduling.deadlines import Deadlines
from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import ItemState, QueueItem
from gateway.scheduling.layout import gather, scatter, wanted_by
from gateway.scheduling.slot import Batch, Hosting, SendImpossible, SendRefused, SlotScheduler
from gateway.scheduling.suspects import Fate, KillLedger, LostInRun, Poison, RetryBudget, fate
from gateway.telemetry.outcome import Outcome as RequestOutcome
from gateway.telemetry.trace import BatchTrace, FailureTrace, MemberTrace
from wire.arena import ArenaFull, ArenaInvalid, RegionTooLarge
from wire.frames import Outcome

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from gateway.admission.admission import Admission
    from gateway.call import Call, CallId
    from gateway.clock import Clock
    from gateway.servable import Servable
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.tracing import Tracing
    from gateway.workerpool.link import WorkerLink
    from wire.frames import Done

log = logging.getLogger(__name__)

# Requests without a deadline queue as if they had this one, so that those with deadlines cannot starve them.
_IMPLIED_DEADLINE_NS = 30_000_000_000


class DeadlineExceeded(Expired):
    def __init__(self, model: str, where: str, waited_ns: int) -> None:
        super().__init__(
            f"model {model}: the deadline passed {where}, {waited_ns / 1e6:.1f} ms after arrival"
        )


class OutputTooLarge(Exhausted):
    def __init__(self, model: str, message: str) -> None:
        super().__init__(f"model {model}: {message}")


class ServableGone(NotReady):
    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(f"model {model} version {version} stopped serving: {reason}")


class Dataplane:
    """`kill_worker` ends the worker of a slot that hangs; `quarantine` takes a servable out of service."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        admission: Admission,
        accounts: Accounts,
        tracing: Tracing,
        *,
        kill_worker: Callable[[str, str], None],
        quarantine: Callable[[Servable, str], None],
    ) -> None:
        self.table = RouteTable()
        self.slots: dict[str, SlotScheduler] = {}
        self.admission = admission
        self._clock = clock
        self._accounts = accounts
        self._tracing = tracing
        self._kill_worker = kill_worker
        self._quarantine = quarantine
        self._items: dict[CallId, QueueItem] = {}  # every call that is not settled
        self._deadlines = Deadlines()
        self._budget = RetryBudget()
        self._kills: dict[Servable, KillLedger] = {}
        self._links: dict[str, WorkerLink] = {}  # {slot name: link}
        self._sequence = itertools.count()
        self._batch_ids = itertools.count(1)
        self._random = random.Random()
        self._alarm = Alarm(loop, self._ring)
        self._alarm_ns = NEVER
        self._epoch_offset_ns = time.time_ns() - clock.now_ns()

    # -- requests come in ---

    def on_calls(self, calls: Sequence[Call]) -> None:
        """Take a burst of calls. Refusals are settled before this returns."""
        now_ns = self._clock.now_ns()
        refused: list[Reply] = []
        for call in calls:
            try:
                self._enqueue(call, now_ns)
            except GatewayError as error:
                refused.append(self._refusal(call, error, now_ns))
            except Exception as error:
                refused.append(self._refusal(call, self._bug(error), now_ns))
        _settle(refused)
        self._pump(now_ns)

    def _enqueue(self, call: Call, now_ns: int) -> None:
        """Queue a call with the servable that is to answer it.

        Raises:
            GatewayError: why it is not queued.
        """
        route = self.table.find(call.model)
        servable = route.choose(call.version, call.metadata, self._random.random())
        policy = servable.policy
        self.admission.check(call, now_ns, policy.max_request_bytes)
        plan = servable.plan(call)
        deadline_ns = NEVER if call.deadline_ns is None else call.deadline_ns
        if policy.default_deadline_ns is not None and deadline_ns == NEVER:
            deadline_ns = call.arrived_ns + policy.default_deadline_ns
        priority = 0
        if call.parameters:
            deadline_ns = _with_timeout(call, deadline_ns)
            priority = int(call.parameters.get("priority", 0))
        item = QueueItem(
            call,
            servable,
            plan,
            rows=plan.rows,
            size_bytes=plan.size_bytes,
            priority=policy.priorities.effective(priority) if policy.priorities.levels else 0,
            enqueued_ns=now_ns,
            sequence=next(self._sequence),
            implied_deadline_ns=now_ns + _IMPLIED_DEADLINE_NS,
            deadline_ns=deadline_ns,
            trace=self._tracing.sample(call.metadata, call.model) if self._tracing.enabled else None,
        )
        servable.queues.push(plan.key, item)
        servable.running += 1
        self.admission.held_bytes += call.size_bytes
        self._items[call.id] = item
        self._deadlines.add(item)
        self._wake(servable)

    def on_cancels(self, ids: Iterable[CallId]) -> None:
        """These callers went away. Unknown ids are of calls that are settled already."""
        now_ns = self._clock.now_ns()
        for id_ in ids:
            item = self._items.get(id_)
            if item is not None:
                self._abandon(item, now_ns)
                self._record_failure(item, Cancelled("the caller went away"), now_ns)
        self._pump(now_ns)

    # -- batches go out ---

    def _wake(self, servable: Servable) -> None:
        for hosting in servable.hostings:
            hosting.slot.wake(hosting)

    def _pump(self, now_ns: int) -> None:
        """Let every slot send what should run now, the one that is free first before the others."""
        slots = self.slots.values()
        if len(slots) > 1:
            slots = sorted(slots, key=lambda slot: slot.rank(now_ns))  # type: ignore[assignment]  # any iterable
        wake_ns = NEVER
        for slot in slots:
            at_ns = slot.pump(now_ns)
            if at_ns is not None:
                wake_ns = min(wake_ns, at_ns)
        self._arm(wake_ns)

    def _send(self, batch: Batch) -> None:
        """Put a batch on its way.

        Raises:
            SendRefused: there is no room now.
            SendImpossible: there never will be; the request is settled.
        """
        slot = batch.hosting.slot
        plans = [item.plan for item in batch.items]
        inputs = gather(plans, [item.call for item in batch.items])
        deadline_ns = max(item.deadline_ns for item in batch.items)
        try:
            self._links[slot.name].run(
                batch.id,
                batch.hosting.id,
                batch.rows,
                inputs,
                wanted_by(plans),
                0 if deadline_ns == NEVER else deadline_ns,
            )
        except ArenaFull as error:
            raise SendRefused from error
        except RegionTooLarge as error:
            if len(batch.items) > 1:
                raise SendRefused from error
            model = batch.items[0].call.model
            self._fail(
                batch.items,
                OutputTooLarge(model, f"the inputs of this request: {error}"),
                self._clock.now_ns(),
            )
            raise SendImpossible from error
        for item in batch.items:
            item.state = ItemState.DISPATCHED
            item.batch = batch

    # -- results come back ---

    def on_done(self, slot_name: str, batch_id: int, done: Done) -> None:
        """A worker answered a batch."""
        now_ns = self._clock.now_ns()
        slot, link = self.slots[slot_name], self._links[slot_name]
        batch = slot.finish(batch_id, done.credits, now_ns)
        if batch is not None:
            try:
                self._finish(slot, link, batch, done, now_ns)
            except GatewayError as error:
                self._fail(batch.items, error, now_ns)
            except ArenaInvalid as error:
                self._fail(batch.items, ModelFailure(f"the worker's answer is unusable: {error}"), now_ns)
            except Exception as error:
                self._fail(batch.items, self._bug(error), now_ns)
        link.free(done.outputs)
        self._pump(now_ns)

    def _finish(self, slot: SlotScheduler, link: WorkerLink, batch: Batch, done: Done, now_ns: int) -> None:
        if done.outcome == Outcome.OK:
            outputs = [Tensor(t.name, t.datatype, t.shape, link.view(t)) for t in done.outputs]
            answers = scatter(outputs, [item.plan for item in batch.items])
            slot.charge(batch.hosting, batch.rows, done.ended_ns - done.started_ns, now_ns)
            self._answer(batch, answers, done, now_ns)
            return
        model = batch.hosting.model
        if done.outcome in (Outcome.CANCELLED, Outcome.UNKNOWN_SERVABLE):
            self._queue_again(batch.items)
        elif done.outcome == Outcome.EXPIRED:
            self._expire(batch.items, now_ns, "before the run")
        elif len(batch.items) > 1 and _servable(batch.items[0]).policy.retry:
            self._run_singly(batch.items)
        elif done.outcome == Outcome.TOO_LARGE:
            self._fail(batch.items, OutputTooLarge(model, done.message), now_ns)
        else:
            self._fail(batch.items, ModelFailure(f"model {model}: {done.message}"), now_ns)

    def _answer(self, batch: Batch, answers: Sequence[Sequence[Tensor]], done: Done, now_ns: int) -> None:
        """Settle the members that still wait, and account for the run once."""
        items = batch.items
        servable = _servable(items[0])
        model, version, revision = servable.model, servable.version, servable.revision
        replies: list[Reply] = []
        rows: list[int] = []
        queued: list[int] = []
        total: list[int] = []
        settled: list[QueueItem] = []
        for item, outputs in zip(items, answers, strict=True):
            if item.state == ItemState.SETTLED:
                continue
            replies.append(Reply(item.call, model, version, revision, outputs))
            rows.append(item.rows)
            queued.append(done.started_ns - item.enqueued_ns)
            total.append(now_ns - item.call.arrived_ns)
            settled.append(item)
            self._release(item)
        _settle(replies)
        self._budget.succeeded(len(settled))
        servable.account.record_batch(
            rows,
            queued,
            total,
            done.ran_ns - done.started_ns,
            done.run_ns,
            done.ended_ns - done.ran_ns - done.run_ns,
            batch.close_reason,
            batch.hosting.slot.device,
            (now_ns + self._epoch_offset_ns) // 1_000_000,
            batch.rows,
        )
        if self._kills:
            self._clear(settled, now_ns)
        if self._tracing.enabled:
            self._trace(batch, servable, settled, done, now_ns)

    def _trace(
        self, batch: Batch, servable: Servable, settled: Sequence[QueueItem], done: Done, now_ns: int
    ) -> None:
        members = tuple(
            MemberTrace(
                item.trace, item.call.arrived_ns, item.enqueued_ns, now_ns, request_id=item.call.request_id
            )
            for item in settled
            if item.trace is not None
        )
        if members:
            slot = batch.hosting.slot
            self._tracing.record_batch(
                BatchTrace(
                    servable.model,
                    servable.version,
                    servable.revision,
                    slot.device,
                    slot.name,
                    batch.rows,
                    batch.close_reason,
                    batch.dispatched_ns,
                    done.ran_ns,
                    done.ran_ns + done.run_ns,
                    now_ns,
                    members,
                )
            )

    # -- when things go wrong ---

    def _release(self, item: QueueItem) -> None:
        """Forget a call that is settled now."""
        item.state = ItemState.SETTLED
        _servable(item).running -= 1
        self.admission.held_bytes -= item.call.size_bytes
        del self._items[item.call.id]

    def _abandon(self, item: QueueItem, now_ns: int) -> None:
        """Take an item that will not be answered with outputs out of its queue or batch."""
        if item.state == ItemState.WAITING:
            _servable(item).queues.remove(item)
        self._release(item)
        batch = item.batch
        if batch is not None and all(mate.state == ItemState.SETTLED for mate in batch.items):
            link = self._links.get(batch.hosting.slot.name)
            if link is not None and batch.id in batch.hosting.slot.in_flight:
                link.cancel(batch.id)
        if self._kills:
            self._clear([item], now_ns)

    def _fail(self, items: Iterable[QueueItem], error: GatewayError, now_ns: int) -> None:
        """Settle those of the items that still wait, with an error."""
        replies = []
        for item in items:
            if item.state != ItemState.SETTLED:
                self._abandon(item, now_ns)
                replies.append(self._error_reply(item, error))
                self._record_failure(item, error, now_ns)
        _settle(replies)

    def _expire(self, items: Iterable[QueueItem], now_ns: int, where: str) -> None:
        for item in items:
            self._fail(
                [item], DeadlineExceeded(item.call.model, where, now_ns - item.call.arrived_ns), now_ns
            )

    def _queue_again(self, items: Iterable[QueueItem]) -> None:
        """Put members back that were sent but never started."""
        for item in items:
            if item.state == ItemState.DISPATCHED:
                self._waiting_again(item)
                _servable(item).queues.put_back(item.plan.key, item)
                self._wake(_servable(item))

    def _run_singly(self, items: Iterable[QueueItem]) -> None:
        """A run failed for one of its members: each runs again, in a batch of its own."""
        for item in items:
            if item.state == ItemState.DISPATCHED:
                self._waiting_again(item)
                servable = _servable(item)
                servable.account.record_reruns(1)
                servable.queues.put_back(("single", item.sequence), item)
                self._wake(servable)

    def _waiting_again(self, item: QueueItem) -> None:
        item.state = ItemState.WAITING
        item.batch = None

    def _clear(self, items: Iterable[QueueItem], now_ns: int) -> None:
        """Tell the ledgers that these are over without having killed a worker."""
        for item in items:
            servable = _servable(item)
            ledger = self._kills.get(servable) if item.lost else None
            if ledger is not None and ledger.settled(item, now_ns):
                self._quarantine(servable, "its runs ended workers without one request to blame")

    def _bug(self, error: Exception) -> Bug:
        bug = Bug(uuid.uuid4().hex[:12])
        log.error("bug in the data plane, error id %s", bug.error_id, exc_info=error)
        return bug

    def _refusal(self, call: Call, error: GatewayError, now_ns: int) -> Reply:
        """Account for a call that is not queued."""
        account = self._accounts.find(call.model, call.version)
        outcome = RequestOutcome.of(error)
        account.record_failure(outcome, now_ns - call.arrived_ns, rejected=True)
        if self._tracing.enabled and (context := self._tracing.sample(call.metadata, call.model)) is not None:
            self._tracing.record_failure(
                FailureTrace(
                    context, call.model, outcome, call.arrived_ns, now_ns, request_id=call.request_id
                )
            )
        route = self.table.models.get(call.model)
        return Reply(call, call.model, call.version, route.revision if route else 0, error=error)

    def _error_reply(self, item: QueueItem, error: GatewayError) -> Reply:
        servable = _servable(item)
        return Reply(item.call, servable.model, servable.version, servable.revision, error=error)

    def _record_failure(self, item: QueueItem, error: GatewayError, now_ns: int) -> None:
        servable, outcome = _servable(item), RequestOutcome.of(error)
        servable.account.record_failure(outcome, now_ns - item.call.arrived_ns)
        if item.trace is not None:
            self._tracing.record_failure(
                FailureTrace(
                    item.trace,
                    servable.model,
                    outcome,
                    item.call.arrived_ns,
                    now_ns,
                    item.enqueued_ns,
                    servable.version,
                    servable.revision,
                    item.call.request_id,
                )
            )

    # -- time ---

    def _arm(self, wake_ns: int) -> None:
        """Set the alarm for the next deadline, queue delay or hung run. It is only ever moved forward
        here.
        """
        deadline_ns = self._deadlines.next_ns()
        if deadline_ns is not None and deadline_ns < wake_ns:
            wake_ns = deadline_ns
        for slot in self.slots.values():
            hung_ns = slot.hung_at_ns(_run_timeout_ns)
            if hung_ns is not None and hung_ns < wake_ns:
                wake_ns = hung_ns
        if wake_ns < self._alarm_ns:
            self._alarm_ns = wake_ns
            self._alarm.set(wake_ns)

    def _ring(self) -> None:
        now_ns = self._clock.now_ns()
        self._alarm_ns = NEVER
        expired = self._deadlines.expired(now_ns)
        for item in expired:
            self._expire(
                [item], now_ns, "in the queue" if item.state == ItemState.WAITING else "during the run"
            )
        for slot in list(self.slots.values()):
            hung_ns = slot.hung_at_ns(_run_timeout_ns)
            if hung_ns is not None and hung_ns <= now_ns:
                batch = next(iter(slot.in_flight.values()))
                limit_ms = _run_timeout_ns(batch) // 1_000_000
                self._kill_worker(
                    slot.name, f"a run of model {batch.hosting.model} did not end within {limit_ms} ms"
                )
        self._pump(now_ns)

    # -- slots and servables come and go ---

    def slot_up(self, name: str, device: str, link: WorkerLink, capacity: int, max_batch_bytes: int) -> None:
        """A slot's worker is there; nothing is hosted on it yet."""
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = SlotScheduler(
                name, device, max_batch_bytes, lambda: next(self._batch_ids)
            )
        self._links[name] = link
        slot.open(capacity, self._send)

    def slot_down(self, name: str, reason: str) -> None:
        """A slot's worker is gone: its batches are lost, started ones are suspects."""
        now_ns = self._clock.now_ns()
        slot = self.slots.get(name)
        if slot is None:
            return
        self._links.pop(name, None)
        running = slot.running()
        for hosting in slot.hostings.values():
            hosting.queues.hostings.remove(hosting)
        for batch in slot.close():
            if batch.id in running:
                self._lost(batch, reason, now_ns)
            else:
                self._queue_again(batch.items)
        self._pump(now_ns)

    def _lost(self, batch: Batch, reason: str, now_ns: int) -> None:
        """Decide about each member of a batch that may have killed its worker."""
        servable = _servable(batch.items[0])
        ledger = self._kills.setdefault(servable, KillLedger())
        again: list[QueueItem] = []
        alone = batch.close_reason == "suspect"
        for item in batch.items:
            if item.state == ItemState.SETTLED:
                continue
            item.lost += 1
            verdict = fate(
                alone=alone, lost=item.lost, retry=servable.policy.retry, budget=alone or self._budget.take()
            )
            if verdict is Fate.RUN_AGAIN:
                self._waiting_again(item)
                again.append(item)
            elif verdict is Fate.CULPRIT:
                ledger.guilty(item)
                log.warning("request %r is poison: %s", item.call.request_id, reason)
                self._fail([item], Poison(servable.model, reason), now_ns)
            else:
                self._fail([item], LostInRun(servable.model, reason, verdict.value), now_ns)
        for item in again:
            servable.queues.suspect(item)
        servable.account.record_reruns(len(again))
        if not alone and ledger.record(now_ns, again):
            self._quarantine(servable, f"its runs ended workers without one request to blame: {reason}")
        self._wake(servable)

    def on_credits(self, slot_name: str, credits: int) -> None:
        self.slots[slot_name].grant(credits)
        self._pump(self._clock.now_ns())

    def host(self, servable: Servable, slot_name: str, id: int, *, count: int, width: int) -> Hosting:
        """The slot's worker has loaded this servable under this id: batches may go there."""
        slot = self.slots[slot_name]
        hosting = Hosting(
            slot, id, servable, servable.model, servable.queues, servable, count=count, width=width
        )
        servable.hostings.append(hosting)
        slot.host(hosting)
        return hosting

    def unhost(self, servable: Servable, slot_name: str) -> None:
        """Send no more of this servable's batches to a slot; what runs there finishes."""
        for hosting in list(servable.hostings):
            if hosting.slot.name == slot_name:
                servable.hostings.remove(hosting)
                hosting.slot.unhost(hosting.id)

    def retire(self, servable: Servable, reason: str) -> None:
        """Fail what still waits for a servable that will not serve any more, and forget it."""
        waiting = list(servable.queues.drain())
        for item in waiting:
            servable.queues.put_back(item.plan.key, item)
        self._fail(waiting, ServableGone(servable.model, servable.version, reason), self._clock.now_ns())
        self._kills.pop(servable, None)

    def pump(self) -> None:
        """Look at everything again, after the table, a policy or a hosting has changed."""
        self._pump(self._clock.now_ns())

    @property
    def unsettled(self) -> int:
        return len(self._items)

    def fail_all(self, error: GatewayError) -> None:
        """Settle every call that is left, at the end of a drain."""
        self._fail(list(self._items.values()), error, self._clock.now_ns())

    def close(self) -> None:
        self._alarm.close()


def _servable(item: QueueItem) -> Servable:
    return item.servable  # type: ignore[return-value]  # scheduling does not know what a servable is


def _run_timeout_ns(batch: Batch) -> int:
    return _servable(batch.items[0]).policy.run_timeout_ns


def _with_timeout(call: Call, deadline_ns: int) -> int:
    """Return the deadline as the `timeout` parameter, microseconds from arrival, may shorten it."""
    timeout_us = call.parameters.get("timeout")
    if isinstance(timeout_us, int) and not isinstance(timeout_us, bool) and timeout_us > 0:
        return min(deadline_ns, call.arrived_ns + timeout_us * 1000)
    return deadline_ns


def _settle(replies: Sequence[Reply]) -> None:
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
