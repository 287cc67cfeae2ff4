"""The scheduler of one device slot: looks at the queues it serves, asks `decide`, and hands batches to the
slot's worker.

It holds what the decision needs to know of the slot: credits, what is in flight, when a lane will be free,
what each model has used. It knows neither processes nor sockets; `send` is how a batch leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.scheduling.cost import CostModel
from gateway.scheduling.decision import (
    Decision,
    Elsewhere,
    Idle,
    QueueView,
    Run,
    SlotView,
    WaitUntil,
    decide,
)
from gateway.scheduling.item import ItemState

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from gateway.scheduling.item import QueueItem
    from gateway.scheduling.queue import RequestQueue, ServableQueues


_RECENT_HALF_LIFE_NS = 500_000_000
_MAX_SHAPES = 256  # with a cost model of their own, for each servable on a slot


class SendRefused(Exception):
    """The batch does not fit the way to the worker now. Room is announced by `SlotScheduler.changed`."""


class SendImpossible(Exception):
    """The one request of the batch can never be sent; whoever raises this has answered it."""


class BatchingPolicy(Protocol):
    """What a model's document says about batches; read at each decision, so that a change holds at once."""

    @property
    def max_rows(self) -> int: ...
    @property
    def max_delay_ns(self) -> int: ...


class Hosting:
    """One servable on one slot."""

    __slots__ = (
        "_by_key",
        "_first_key",
        "cost",
        "count",
        "id",
        "in_flight",
        "model",
        "policy",
        "queues",
        "servable",
        "slot",
        "width",
    )

    def __init__(
        self,
        slot: SlotScheduler,
        id: int,
        servable: object,
        model: str,
        queues: ServableQueues,
        policy: BatchingPolicy,
        *,
        count: int,
        width: int,
    ) -> None:
        self.slot = slot
        self.id = id
        self.servable = servable
        self.model = model
        self.queues = queues
        self.policy = policy
        self.count = count
        self.width = width
        self.in_flight = 0
        self.cost = CostModel()  # over all shapes
        self._by_key: dict[Hashable, CostModel] = {}  # {batch key: model}, once there is more than one
        self._first_key: Hashable = None

    def cost_of(self, key: Hashable) -> CostModel:
        """Return what is known of runs of one shape, of all shapes where nothing is."""
        return self._by_key.get(key, self.cost) if self._by_key else self.cost

    def observe(self, key: Hashable, rows: int, run_ns: int, now_ns: int) -> None:
        self.cost.observe(rows, run_ns, now_ns)
        if self._first_key is None:
            self._first_key = key
        if key == self._first_key and not self._by_key:
            return
        if len(self._by_key) >= _MAX_SHAPES:
            self._by_key.clear()
        self._by_key.setdefault(key, CostModel()).observe(rows, run_ns, now_ns)


class Batch:
    """Items that run together."""

    __slots__ = (
        "alone",
        "begun",
        "close_reason",
        "dispatched_ns",
        "hosting",
        "id",
        "items",
        "key",
        "plan",
        "rows",
        "started_ns",
    )

    def __init__(
        self, id: int, hosting: Hosting, items: list[QueueItem], close_reason: str, now_ns: int
    ) -> None:
        self.id = id
        self.hosting = hosting
        self.items = items
        plan = items[0].plan
        self.key = plan.key
        self.plan = plan if all(item.plan is plan for item in items) else None  # of all members
        self.rows = plan.rows * len(items) if self.plan else sum([item.rows for item in items])
        self.close_reason = close_reason
        self.alone = close_reason == "suspect"
        self.begun = (
            not self.alone
        )  # of a suspect the worker says so: other gateways' batches may come before
        self.dispatched_ns = now_ns
        self.started_ns = now_ns  # estimated: set again when the one before it on this slot is done


class SlotScheduler:
    """Not usable before `open`, and again not after `close`, when its worker is gone."""

    def __init__(
        self, name: str, device: str, max_batch_bytes: int, next_batch_id: Callable[[], int]
    ) -> None:
        self.name = name
        self.device = device
        self.credits = 0
        self.capacity = 0
        self.in_flight: dict[int, Batch] = {}  # by id, in the order in which they were sent
        self.hostings: dict[int, Hosting] = {}  # by servable id
        self.used_ns: dict[str, float] = {}  # {model: device time}
        self._active: dict[int, Hosting] = {}  # hostings whose servable has something waiting
        self._max_batch_bytes = max_batch_bytes
        self._next_batch_id = next_batch_id
        self._send: Callable[[Batch], None] | None = None
        self._blocked = False
        self._last_done_ns = 0
        self.ending = False  # its worker hangs and is being ended
        self.busy_ns = 0  # capacity that runs have used
        self._recent_rows = 0.0  # rows sent, halved every `_RECENT_HALF_LIFE_NS`
        self._recent_at_ns = 0

    def open(self, capacity: int, send: Callable[[Batch], None]) -> None:
        """The worker is there. `send` raises SendRefused when the batch does not fit now."""
        self.capacity = capacity
        self.ending = False
        self._send = send
        self.credits = 0
        self._blocked = False

    def close(self) -> list[Batch]:
        """The worker is gone; return the batches that went with it, oldest first."""
        lost = list(self.in_flight.values())
        self.in_flight.clear()
        self.hostings.clear()
        self._active.clear()
        self._send = None
        self.credits = 0
        return lost

    def host(self, hosting: Hosting) -> None:
        self.hostings[hosting.id] = hosting
        if hosting.queues.size:
            self.wake(hosting)

    def unhost(self, id: int) -> None:
        self.hostings.pop(id, None)
        self._active.pop(id, None)

    def wake(self, hosting: Hosting) -> None:
        """Something waits for this servable."""
        if hosting.id not in self._active:
            self._active[hosting.id] = hosting
            others = [self.used_ns.get(h.model, 0.0) for h in self._active.values() if h is not hosting]
            if others:  # a model that was away has no claim on the time that others used meanwhile
                self.used_ns[hosting.model] = max(self.used_ns.get(hosting.model, 0.0), min(others))

    @property
    def has_waiting(self) -> bool:
        """Whether something waits that may run here."""
        return any(hosting.queues.size for hosting in self._active.values())

    def ready_ns(self, now_ns: int) -> int:
        """Return when a batch that is sent now could start, as far as the cost models know."""
        running = sum(batch.hosting.width for batch in self.in_flight.values())
        if running < self.capacity:
            return now_ns
        work_ns = 0.0
        for batch in self.in_flight.values():
            # rather too soon than too late: what is staged early waits, what is late leaves the device idle
            cost_ns = batch.hosting.cost_of(batch.key).snapshot(now_ns).at_least_ns(batch.rows)
            work_ns += max(cost_ns - max(now_ns - batch.started_ns, 0), 0) * batch.hosting.width
        return now_ns + int(work_ns / max(self.capacity, 1))

    def pump(self, now_ns: int) -> int | None:
        """Send what should run now; return when to be asked again, None when only a change matters."""
        while self._active and self._send is not None and not self._blocked:
            decision, queues, hostings = self._decide(now_ns)
            if isinstance(decision, Run):
                self._run(now_ns, hostings[decision.queue], queues[decision.queue], decision)
            else:
                return decision.at_ns if isinstance(decision, WaitUntil) else None
        return None

    def _decide(self, now_ns: int) -> tuple[Decision, list[RequestQueue], list[Hosting]]:
        views: list[QueueView] = []
        queues: list[RequestQueue] = []
        hostings: list[Hosting] = []
        for hosting in list(self._active.values()):
            if not hosting.queues.size:
                del self._active[hosting.id]
                continue
            for queue in hosting.queues.nonempty():
                views.append(self._view(now_ns, hosting, queue))
                queues.append(queue)
                hostings.append(hosting)
        if not views:
            return Idle(), queues, hostings
        ready_ns = self.ready_ns(now_ns)
        slot = SlotView(
            self.credits,
            len(self.in_flight),
            ready_ns <= now_ns,
            ready_ns,
            self._max_batch_bytes,
            any(batch.alone for batch in self.in_flight.values()),
        )
        return decide(now_ns, slot, views), queues, hostings

    def _view(self, now_ns: int, hosting: Hosting, queue: RequestQueue) -> QueueView:
        policy = hosting.policy
        max_rows = policy.max_rows
        return QueueView(
            entries=queue.items[:max_rows],
            waiting=len(queue.items),
            band=queue.items[0].priority,
            used_ns=self.used_ns.get(hosting.model, 0.0),
            max_rows=max_rows,
            max_delay_ns=policy.max_delay_ns,
            width=hosting.width,
            room=2 * hosting.count - hosting.in_flight,
            cost=hosting.cost_of(queue.key).snapshot(now_ns),
            elsewhere=self._elsewhere(now_ns, hosting, queue.key),
            alone=queue.alone,
            even=queue.even,
            due_ns=queue.items[0].due_ns,
        )

    def _elsewhere(self, now_ns: int, hosting: Hosting, key: Hashable) -> list[Elsewhere]:
        others = []
        for other in hosting.queues.hostings:
            if other is not hosting and other.slot.usable:
                ready_ns = other.slot.ready_ns(now_ns)
                others.append(Elsewhere(ready_ns, ready_ns <= now_ns, other.cost_of(key).snapshot(now_ns)))
        return others

    @property
    def usable(self) -> bool:
        return self._send is not None

    def _run(self, now_ns: int, hosting: Hosting, queue: RequestQueue, run: Run) -> None:
        picks: Sequence[int] = run.picks
        while True:
            items = hosting.queues.take(queue, picks)
            if self._start(now_ns, hosting, items, run.reason):
                return
            for item in items:
                if queue.alone:
                    hosting.queues.suspect(item)
                else:
                    hosting.queues.push(queue.key, [item])
            if len(picks) == 1:
                self._blocked = True
                return
            # that made a new queue where the old one had become empty
            queue = queue if queue.alone else hosting.queues.by_key[queue.key]
            picks = picks[: len(picks) // 2]

    def _start(self, now_ns: int, hosting: Hosting, items: list[QueueItem], reason: str) -> bool:
        """Send a batch of items that are in no queue. False: there is no room now, and they wait again. What
        can never be sent is settled by then.
        """
        assert self._send is not None, "only an open slot sends"
        for item in items:
            item.state = ItemState.DISPATCHED
        batch = Batch(self._next_batch_id(), hosting, items, reason, now_ns)
        try:
            self._send(batch)
        except SendImpossible:
            return True
        except SendRefused:
            for item in items:
                item.state = ItemState.WAITING
            return False
        hosting.in_flight += 1
        self.credits -= hosting.width
        self.in_flight[batch.id] = batch
        self._recent_rows += batch.rows
        return True

    def send_at_once(self, now_ns: int, hosting: Hosting, items: list[QueueItem]) -> bool:
        """Send new requests, all of one plan, before they are queued, where nothing else waits and `decide`
        would send them all: the slot is idle, they fit into one batch and are in time. False: queue them.
        """
        if self._send is None or self._blocked or self.in_flight or self.credits < hosting.width:
            return False
        plan, policy, count = items[0].plan, hosting.policy, len(items)
        rows, max_rows = plan.rows * count, policy.max_rows
        if not 0 < rows <= max_rows or (policy.max_delay_ns and rows < max_rows) or self.has_waiting:
            return False
        if count > 1 and plan.size_bytes * count > self._max_batch_bytes:
            return False
        cost = hosting.cost_of(plan.key).snapshot(now_ns)
        if min([item.due_ns for item in items]) < now_ns + max(cost.floor_ns, cost.predict_ns(rows)):
            return False
        return self._start(now_ns, hosting, items, "full" if rows == max_rows else "idle")

    def finish(self, batch_id: int, credits: int, now_ns: int) -> Batch | None:
        """A batch came back, with these credits. None for one that is not known."""
        batch = self.in_flight.pop(batch_id, None)
        if batch is None:
            return None
        batch.hosting.in_flight -= 1
        self.credits += credits
        self._last_done_ns = now_ns
        self._blocked = False
        for following in self.in_flight.values():
            following.started_ns = max(following.started_ns, now_ns)
            break
        return batch

    def hung_at_ns(self, run_timeout_ns: Callable[[Batch], int]) -> int | None:
        """Return when the oldest batch counts as hung: nothing came back for its time limit, or it took
        twice that.
        """
        if self.ending:
            return None
        for batch in self.in_flight.values():
            limit_ns = run_timeout_ns(batch)
            progress_ns = max(batch.dispatched_ns, self._last_done_ns)
            return min(progress_ns + limit_ns, batch.dispatched_ns + 2 * limit_ns)
        return None

    def begin(self, batch_id: int) -> None:
        """The worker has started a suspect."""
        batch = self.in_flight.get(batch_id)
        if batch is not None:
            batch.begun = True

    def running(self) -> set[int]:
        """Return the ids of the batches that may have been started, by the rule that the worker's executor
        follows.
        """
        free, counts, started = self.capacity, dict[int, int](), set[int]()
        for batch in self.in_flight.values():
            if not batch.begun:
                continue
            hosting = batch.hosting
            width, count = min(hosting.width, self.capacity), counts.get(hosting.id, 0)
            if count >= hosting.count:
                continue
            if width > free:
                break
            free -= width
            counts[hosting.id] = count + 1
            started.add(batch.id)
        return started

    def rank(self, now_ns: int) -> tuple[int, float]:
        """Return what orders slots that could take the same work: when it would be done there, to the
        millisecond, then who has been busy less of late, so that devices of about the same speed share the
        load.
        """
        # the fastest recent run, not the mean: a slot that was slow once must be tried again to be seen fast
        costs = [hosting.cost.snapshot(now_ns).floor_ns for hosting in self._active.values()]
        done_ns = self.ready_ns(now_ns) + min(costs, default=0)
        self._recent_rows *= 0.5 ** ((now_ns - self._recent_at_ns) / _RECENT_HALF_LIFE_NS)
        self._recent_at_ns = now_ns
        return int((done_ns - now_ns) // 1_000_000), self._recent_rows

    def charge(self, batch: Batch, run_ns: int, now_ns: int) -> None:
        """Account for a run: what it cost, and who used the slot."""
        hosting = batch.hosting
        hosting.observe(batch.key, batch.rows, run_ns, now_ns)
        self.busy_ns += run_ns * hosting.width
        self.used_ns[hosting.model] = self.used_ns.get(hosting.model, 0.0) + run_ns * hosting.width

    def grant(self, credits: int) -> None:
        self.credits += credits

    def changed(self) -> None:
        """There is room again on the way to the worker."""
        self._blocked = False
