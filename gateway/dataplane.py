"""The data plane: what happens to a request between the front end and a worker. Read this first.

    on_calls(burst)   each call: access, where that is enforced → routing → admission → the servable's plan →
    its queue, or an idle slot;
                      one for a version that is loaded on demand is parked until `wake_parked`
    _pump             each slot: `decide` picks a queue and a batch; the link carries it to the worker
    on_done           the batch comes back: outputs are split, every member is settled on its own
    on_cancels, _ring cancellations, and the one alarm for deadlines, queue delays and hung runs

Guarantees. Every call is settled exactly once, unless it was cancelled first: then never. A bad, cancelled or
expired member never harms its batch mates. Nothing here awaits, and no coroutine, future or timer exists per
request. All methods run on the loop's thread.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from gateway.admission.admission import check_parameters
from gateway.call import Tensor
from gateway.clock import Alarm
from gateway.errors import Exhausted, GatewayError, InvalidRequest, ModelFailure, NotReady
from gateway.losses import Losses
from gateway.parking import Parking
from gateway.routing.table import ModelAsleep, RouteTable
from gateway.scheduling.deadlines import Deadlines
from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import ItemState, QueueItem
from gateway.scheduling.layout import gather, gather_alike, wanted_by
from gateway.scheduling.slot import Batch, Hosting, SendImpossible, SendRefused, SlotScheduler
from gateway.settlement import CallerGone, DeadlineExceeded, Settlement, bug, deliver, servable_of
from wire.arena import ArenaFull, ArenaInvalid, RegionTooLarge
from wire.frames import Outcome

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Container, Iterable, Sequence

    from gateway.admission.access import Access
    from gateway.admission.admission import Admission
    from gateway.call import Call, CallId, Reply, ShapeKey
    from gateway.clock import Clock
    from gateway.scheduling.layout import Plan
    from gateway.servable import Servable
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.tracing import Tracing
    from gateway.workerpool.seam import Link
    from wire.frames import Done

# Requests without a deadline queue as if they had this one, so that those with deadlines cannot starve them.
_IMPLIED_DEADLINE_NS = 30_000_000_000
_MAX_KINDS = 1024  # that are remembered


class TensorsTooLarge(Exhausted):
    def __init__(self, model: str, which: str, limit: str) -> None:
        super().__init__(f"model {model}: the {which} of this request: {limit}")


class ParameterInvalid(InvalidRequest):
    def __init__(self, model: str, parameter: str, value: object) -> None:
        super().__init__(
            f"model {model}: parameter {parameter!r} must be a whole number from 0, not {value!r}"
        )


class ServableGone(NotReady):
    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(f"model {model} version {version} stopped serving: {reason}")


class Kind:
    """What calls of one shape key have in common: worked out once, as long as neither the table nor the
    servable's policy changes.

    `timeout_ns` is from arrival, as the request's parameter may say; NEVER without one. So is
    `default_deadline_ns`, the model's own for requests without a deadline. `items` are those of a burst.
    """

    __slots__ = ("default_deadline_ns", "items", "plan", "policy", "priority", "servable", "timeout_ns")

    def __init__(self, servable: Servable, plan: Plan, priority: int, timeout_ns: int) -> None:
        policy = servable.policy
        self.servable = servable
        self.policy = policy
        self.plan = plan
        self.priority = policy.priorities.effective(priority) if policy.priorities.levels else 0
        self.timeout_ns = timeout_ns or NEVER
        self.default_deadline_ns = policy.default_deadline_ns or NEVER
        self.items: list[QueueItem] = []


class Dataplane:
    """`kill_worker` ends the worker of a slot that hangs; `quarantine` takes a servable out of service;
    `demand` asks for a version of a model that is loaded on demand, and says whether it is to be waited for.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        admission: Admission,
        access: Access,
        accounts: Accounts,
        tracing: Tracing,
        *,
        kill_worker: Callable[[str, str], None],
        quarantine: Callable[[Servable, str], None],
        demand: Callable[[str, str], bool],
    ) -> None:
        self._table = RouteTable()
        self._kinds: dict[ShapeKey | None, Kind] = {}
        self.slots: dict[str, SlotScheduler] = {}  # {slot name: its scheduler}
        self._links: dict[str, Link] = {}  # {slot name: link to its worker, while that is up}
        self._clock = clock
        self._admission = admission
        self._access = access
        self._tracing = tracing
        self._kill_worker = kill_worker
        self._losses = Losses(quarantine)
        self._settlement = Settlement(
            clock,
            admission,
            accounts,
            tracing,
            self._losses.cleared,
            self._losses.inconclusive,
            self._on_deserted,
            lambda: self._table,
        )
        self._deadlines = Deadlines()
        self._accounts = accounts
        self._bursts = accounts.burst_size
        self._demand = demand
        self._parking = Parking()
        self._sequence = itertools.count()
        self._batch_ids = itertools.count(1)
        self._random = random.Random()
        self._alarm = Alarm(loop, self._ring)
        self._alarm_ns = NEVER

    @property
    def table(self) -> RouteTable:
        """Where calls go. It is replaced as a whole."""
        return self._table

    @table.setter
    def table(self, table: RouteTable) -> None:
        self._table = table
        self._kinds.clear()

    # Requests come in.

    def on_calls(self, calls: Sequence[Call]) -> None:
        """Take a burst of calls. Refusals are settled before this returns."""
        self._bursts.observe(len(calls))
        self._take(calls)

    def _take(self, calls: Sequence[Call], woken: Servable | None = None) -> None:
        """Take calls; those that have waited for the servable `woken` were admitted and routed before."""
        now_ns = self._clock.now_ns()
        refused: list[Reply] = []
        taken: list[Kind] = []
        enforced = self._access.enforced and woken is None
        for call in calls:
            kind = self._kinds.get(call.shape_key)
            if kind is not None and kind.policy is not kind.servable.policy:
                kind = None
            servable = None if kind is None else kind.servable
            try:
                if enforced:
                    self._access.check(call.metadata, call.model, "infer")
                if servable is None:
                    servable = woken or self._route(call)
                size_bytes, deadline_ns = call.size_bytes, call.deadline_ns
                if woken is None:
                    self._admission.check(
                        servable.model, size_bytes, deadline_ns, now_ns, servable.policy.max_request_bytes
                    )
                if kind is None:
                    kind = self._kind(call, servable)
                if not kind.items:
                    taken.append(kind)
                kind.items.append(self._item(call, kind, size_bytes, deadline_ns, now_ns))
                self._admission.held_bytes += size_bytes
            except ModelAsleep as asleep:
                refused += self._park(call, asleep, now_ns)
            except GatewayError as error:
                refused.append(self._refuse(call, servable, error, now_ns))
            except Exception as error:
                refused.append(self._refuse(call, servable, bug(error), now_ns))
        for kind in taken:
            refused += self._enqueue(kind, now_ns, alone=len(taken) == 1)
        deliver(refused)
        self._pump(now_ns)

    def _route(self, call: Call) -> Servable:
        """Return the servable that is to answer a call.

        Raises:
            UnknownModel, UnknownVersion, ModelNotReady
        """
        route = self.table.find(call.model)
        if not call.version and route.only is not None:
            return route.only
        return route.choose(call.version, call.metadata, self._random.random())

    def _kind(self, call: Call, servable: Servable) -> Kind:
        """Return what holds for all calls like this one; remember it where they all go to this servable.

        Raises:
            GatewayError: no such call can be queued.
        """
        key = call.shape_key
        priority = timeout_ns = 0
        if call.parameters:
            check_parameters(call)
            timeout_ns = _whole(call, "timeout") * 1000
            priority = _whole(call, "priority")
        kind = Kind(servable, servable.plan(call), priority, timeout_ns)
        if key is not None and kind.plan.covers(key) and self.table.find(call.model).is_settled(call.version):
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            self._kinds[key] = kind
        return kind

    def _item(
        self, call: Call, kind: Kind, size_bytes: int, given_deadline_ns: int | None, now_ns: int
    ) -> QueueItem:
        servable, timeout_ns, default_deadline_ns = kind.servable, kind.timeout_ns, kind.default_deadline_ns
        deadline_ns = NEVER
        if given_deadline_ns is not None or timeout_ns != NEVER or default_deadline_ns != NEVER:
            arrived_ns = call.arrived_ns
            deadline_ns = arrived_ns + default_deadline_ns if given_deadline_ns is None else given_deadline_ns
            deadline_ns = min(deadline_ns, arrived_ns + timeout_ns, NEVER)
        tracing = self._tracing
        return QueueItem(
            call,
            servable,
            kind.plan,
            kind.priority,
            now_ns,
            next(self._sequence),
            now_ns + _IMPLIED_DEADLINE_NS,
            deadline_ns,
            tracing.sample(call.metadata, servable.model) if tracing.enabled else None,
            size_bytes,
        )

    def _enqueue(self, kind: Kind, now_ns: int, *, alone: bool) -> list[Reply]:
        """Queue what was taken of a kind, or send it at once; return the answers to what the queue has no
        room for. `alone`: the burst brought nothing else.
        """
        servable, items = kind.servable, kind.items
        kind.items = []
        queues = servable.queues
        left = items[queues.room :]
        if left:
            del items[queues.room :]
        if items:
            servable.used_ns = now_ns
            self._settlement.hold(servable, items)
            for item in items:
                if item.deadline_ns != NEVER:
                    self._deadlines.add(item)
            hosting = queues.hostings[0] if alone and not queues.size and len(queues.hostings) == 1 else None
            if hosting is None or not hosting.slot.send_at_once(now_ns, hosting, items):
                queues.push(kind.plan.key, items)
                self._wake(servable)
        self._admission.held_bytes -= sum([item.held_bytes for item in left])
        return [self._refuse(item.call, servable, queues.full(), now_ns) for item in left]

    def _refuse(self, call: Call, servable: Servable | None, error: GatewayError, now_ns: int) -> Reply:
        if servable is not None:
            return self._settlement.refuse(call, error, servable.version, servable.revision, now_ns)
        route = self.table.models.get(call.model)
        return self._settlement.refuse(call, error, "", route.revision if route else 0, now_ns)

    def _park(self, call: Call, asleep: ModelAsleep, now_ns: int) -> list[Reply]:
        """Keep a call until its version is loaded; return the answer to one that cannot be kept."""
        self._accounts.open(asleep.model, asleep.version)  # it counts before it was loaded for the first time
        try:
            waits = asleep.waits
            due_ns = _due_ns(call, waits.default_deadline_ns)
            self._admission.check(call.model, call.size_bytes, due_ns, now_ns, waits.max_request_bytes)
            self._parking.park(call, asleep, now_ns, due_ns)
        except GatewayError as error:
            return [self._refuse(call, None, error, now_ns)]
        self._admission.held_bytes += call.size_bytes
        self._demand(asleep.model, asleep.version)
        return []

    def wake_parked(self) -> None:
        """Send on the calls whose version is there now, and those for which it will not be."""
        for awaited in self._parking.awaited():
            route = self._table.models.get(awaited.model)
            servable = route.ready.get(awaited.version) if route is not None else None
            # asked for again: it may have gone before it was there for these
            if servable is None and self._demand(*awaited):
                continue
            calls = self._unpark(self._parking.take(awaited))
            self._take(calls, servable)

    def _unpark(self, calls: list[Call]) -> list[Call]:
        self._admission.held_bytes -= sum([call.size_bytes for call in calls])
        return calls

    def on_cancels(self, ids: Iterable[CallId]) -> None:
        """These callers went away."""
        now_ns = self._clock.now_ns()
        if len(self._parking):
            ids = list(ids)
            for call in self._unpark(self._parking.cancel(ids)):
                self._refuse(call, None, CallerGone(), now_ns)
        self._settlement.cancel(ids, now_ns)
        self._pump(now_ns)

    # Batches go out.

    def _wake(self, servable: Servable) -> None:
        for hosting in servable.hostings:
            hosting.slot.wake(hosting)

    def _pump(self, now_ns: int) -> None:
        """Let every slot send what should run now, the one that would be done first before the others."""
        slots: Iterable[SlotScheduler] = self.slots.values()
        if len(self.slots) > 1:
            slots = sorted(slots, key=lambda slot: slot.rank(now_ns))
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
        calls = [item.call for item in batch.items]
        if batch.plan is not None:
            inputs, wanted = gather_alike(batch.plan, calls), batch.plan.wanted
        else:
            plans = [item.plan for item in batch.items]
            inputs, wanted = gather(plans, calls), wanted_by(plans)
        deadline_ns = max([item.deadline_ns for item in batch.items])
        link = self._links[batch.hosting.slot.name]
        try:
            link.run(
                batch.id,
                batch.hosting.id,
                batch.rows,
                inputs,
                wanted,
                0 if deadline_ns == NEVER else deadline_ns,
                alone=batch.alone,
            )
        except ArenaFull as error:
            raise SendRefused from error
        except RegionTooLarge as error:
            if len(batch.items) > 1:
                raise SendRefused from error
            too_large = TensorsTooLarge(batch.hosting.model, "inputs", str(error))
            self._settlement.fail(batch.items, too_large, self._clock.now_ns())
            raise SendImpossible from error
        for item in batch.items:
            item.batch = batch

    # Results come back.

    def on_begun(self, slot_name: str, batch_id: int) -> None:
        """A worker started a batch that runs alone."""
        self.slots[slot_name].begin(batch_id)

    def on_done(self, slot_name: str, batch_id: int, done: Done) -> None:
        """A worker answered a batch."""
        now_ns = self._clock.now_ns()
        slot, link = self.slots[slot_name], self._links[slot_name]
        credits = done.credits
        if done.outcome == Outcome.UNKNOWN_SERVABLE and batch_id in slot.in_flight:
            credits = slot.in_flight[batch_id].hosting.width  # the worker cannot know it
        batch = slot.finish(batch_id, credits, now_ns)
        pumped = False
        if batch is not None:
            if done.outcome == Outcome.OK:
                slot.charge(batch, done.ended_ns - done.started_ns, now_ns)
                if slot.has_waiting:
                    # the worker may be idle now: it gets its next batch before this one's answers are written
                    self._pump(now_ns)
                    pumped = True
            try:
                self._finish(slot, link, batch, done, now_ns)
            except GatewayError as error:
                self._settlement.fail(batch.items, error, now_ns)
            except ArenaInvalid as error:
                unusable = ModelFailure(f"the worker's answer is unusable: {error}")
                self._settlement.fail(batch.items, unusable, now_ns)
            except Exception as error:
                self._settlement.fail(batch.items, bug(error), now_ns)
        link.free(done.outputs)
        if not pumped:
            self._pump(now_ns)  # what is to run again may have been put back

    def _finish(self, slot: SlotScheduler, link: Link, batch: Batch, done: Done, now_ns: int) -> None:
        if done.outcome == Outcome.OK:
            outputs = [Tensor(t.name, t.datatype, t.shape, link.view(t)) for t in done.outputs]
            self._losses.budget.succeeded(self._settlement.answer(batch, outputs, done, now_ns))
            self._losses.answered(servable_of(batch.items[0]))
            return
        model = batch.hosting.model
        if done.outcome in (Outcome.CANCELLED, Outcome.UNKNOWN_SERVABLE):
            if done.outcome == Outcome.UNKNOWN_SERVABLE:
                self.unhost(servable_of(batch.items[0]), slot.name)
            self._queue_again(batch)
        elif done.outcome == Outcome.EXPIRED:
            self._settlement.expire(batch.items, "before the run", now_ns)
        elif len(batch.items) > 1 and servable_of(batch.items[0]).policy.retry:
            self._run_singly(batch, _failure(model, done), now_ns)
        else:
            self._settlement.fail(batch.items, _failure(model, done), now_ns, done)

    def _queue_again(self, batch: Batch) -> None:
        """Put members back that were sent but never started."""
        now_ns = self._clock.now_ns()
        for item in batch.items:
            if item.state == ItemState.DISPATCHED:
                self._settlement.chronicle.lost(batch, item, "never started", now_ns)
                item.state = ItemState.WAITING
                item.batch = None
                servable = servable_of(item)
                if batch.alone:
                    servable.queues.suspect(item)
                else:
                    servable.queues.push(item.plan.key, [item])
                self._wake(servable)

    def _run_singly(self, batch: Batch, failure: GatewayError, now_ns: int) -> None:
        """A run failed because of one of its members: each runs again, in a batch of its own, as far as the
        retry budget goes.
        """
        for item in batch.items:
            if item.state == ItemState.DISPATCHED:
                if not self._losses.budget.take():
                    self._settlement.fail([item], failure, now_ns)
                    continue
                self._settlement.chronicle.lost(batch, item, str(failure), now_ns)
                item.state = ItemState.WAITING
                item.batch = None
                servable = servable_of(item)
                servable.account.record_reruns(1)
                servable.queues.push(("single", item.sequence), [item])
                self._wake(servable)

    def _on_deserted(self, batch: Batch) -> None:
        """Nobody waits for this batch any more."""
        slot = batch.hosting.slot
        link = self._links.get(slot.name)
        if link is not None and batch.id in slot.in_flight:
            link.cancel(batch.id)

    # Time passes.

    def _arm(self, wake_ns: int) -> None:
        """Set the alarm for the next deadline, queue delay or hung run. It is only ever moved forward
        here.
        """
        deadline_ns = self._deadlines.next_ns()
        if deadline_ns is not None and deadline_ns < wake_ns:
            wake_ns = deadline_ns
        parked_ns = self._parking.next_ns()
        if parked_ns is not None and parked_ns < wake_ns:
            wake_ns = parked_ns
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
        for item in self._deadlines.expired(now_ns):
            where = "in the queue" if item.state == ItemState.WAITING else "during the run"
            self._settlement.expire([item], where, now_ns)
        for call in self._unpark(self._parking.expired(now_ns)):
            late = DeadlineExceeded(call.model, "while the model was loaded", now_ns - call.arrived_ns)
            deliver([self._refuse(call, None, late, now_ns)])
        for slot in list(self.slots.values()):
            hung_ns = slot.hung_at_ns(_run_timeout_ns)
            if hung_ns is not None and hung_ns <= now_ns:
                batch = next(iter(slot.in_flight.values()))
                limit_ms = _run_timeout_ns(batch) // 1_000_000
                what = f"a run of model {batch.hosting.model} did not end within {limit_ms} ms"
                slot.ending = True
                self._kill_worker(slot.name, what)
        self._pump(now_ns)

    # Slots and servables come and go.

    def slot_up(self, name: str, device: str, link: Link, capacity: int, max_batch_bytes: int) -> None:
        """A slot's worker is there; nothing is hosted on it yet."""
        slot = self.slots.get(name)
        if slot is None:
            slot = SlotScheduler(name, device, max_batch_bytes, lambda: next(self._batch_ids))
            self.slots[name] = slot
        self._links[name] = link
        slot.open(capacity, self._send)

    def slot_down(self, name: str, reason: str, *, way_lost: bool = False) -> None:
        """A slot's worker is gone: its batches are lost, started ones are suspects. `way_lost`: only the way
        to it is gone, and nobody is a suspect.
        """
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
                self._losses.lose(batch, reason, self._settlement, now_ns, blameless=way_lost)
                self._wake(servable_of(batch.items[0]))
            else:
                self._queue_again(batch)
        self._pump(now_ns)

    def forget_slots(self, there: Container[str]) -> None:
        """Drop the schedulers of slots that are not there any more."""
        for name in [name for name in self.slots if name not in there and name not in self._links]:
            del self.slots[name]

    def on_credits(self, slot_name: str, credits: int) -> None:
        self.slots[slot_name].grant(credits)
        self._pump(self._clock.now_ns())

    def host(self, servable: Servable, slot_name: str, id: int, *, count: int, width: int) -> Hosting:
        """The slot's worker has loaded this servable under this id: batches may go there."""
        slot = self.slots[slot_name]
        queues, model = servable.queues, servable.model
        hosting = Hosting(slot, id, servable, model, queues, servable, count=count, width=width)
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
        gone = ServableGone(servable.model, servable.version, reason)
        waiting = [item for queue in servable.queues.nonempty() for item in queue.items]
        self._settlement.fail(waiting, gone, self._clock.now_ns())
        self._losses.forget(servable)

    def pump(self) -> None:
        """Look at everything again, after the table, a policy or a hosting has changed."""
        self._pump(self._clock.now_ns())

    def arena_used_bytes(self) -> dict[str, int]:
        """Return {slot name: bytes of shared memory that its batches hold}."""
        return {name: link.arena_used_bytes for name, link in self._links.items()}

    def arena_bytes(self) -> dict[str, int]:
        """Return {slot name: bytes of shared memory towards its worker}, of those that have some."""
        return {name: size for name, link in self._links.items() if (size := link.arena_bytes)}

    @property
    def unsettled(self) -> int:
        return len(self._settlement.items) + len(self._parking)

    def fail_all(self, error: GatewayError) -> None:
        """Settle every call that is left, at the end of a drain."""
        now_ns = self._clock.now_ns()
        for awaited in self._parking.awaited():
            calls = self._unpark(self._parking.take(awaited))
            deliver([self._refuse(call, None, error, now_ns) for call in calls])
        self._settlement.fail(list(self._settlement.items.values()), error, now_ns)

    def close(self) -> None:
        self._alarm.close()


def _failure(model: str, done: Done) -> GatewayError:
    if done.outcome == Outcome.TOO_LARGE:
        return TensorsTooLarge(model, "outputs", done.message)
    return ModelFailure(f"model {model}: {done.message}")


def _run_timeout_ns(batch: Batch) -> int:
    return servable_of(batch.items[0]).policy.run_timeout_ns


def _due_ns(call: Call, default_deadline_ns: int | None) -> int:
    """Return when a call that is not planned yet expires, NEVER where nothing says so.

    Raises:
        ParameterInvalid
    """
    deadline_ns, arrived_ns = call.deadline_ns, call.arrived_ns
    if deadline_ns is None and default_deadline_ns is not None:
        deadline_ns = arrived_ns + default_deadline_ns
    timeout_ns = _whole(call, "timeout") * 1000 or NEVER
    return min(NEVER if deadline_ns is None else deadline_ns, arrived_ns + timeout_ns)


def _whole(call: Call, parameter: str) -> int:
    """Return a parameter that is a whole number, 0 when it is not given.

    Raises:
        ParameterInvalid: it is something else.
    """
    value = call.parameters.get(parameter, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ParameterInvalid(call.model, parameter, value)
    return value
