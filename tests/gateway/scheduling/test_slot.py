from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.scheduling.decision import LEAD_NS, NEVER
from gateway.scheduling.item import ItemState
from gateway.scheduling.queue import ServableQueues
from gateway.scheduling.slot import Hosting, SendImpossible, SendRefused, SlotScheduler

MS = 1_000_000


@dataclass
class Policy:
    max_rows: int = 8
    max_delay_ns: int = 0


@dataclass
class Worker:
    """Where batches go: refuses those larger than `fits` rows, and settles those over `possible` rows."""

    fits: int = 1000
    possible: int = 1000
    batches: list = field(default_factory=list)

    def send(self, batch):
        if batch.rows > self.possible:
            for item in batch.items:
                assert item.state == ItemState.DISPATCHED
                item.state = ItemState.SETTLED
            raise SendImpossible
        if batch.rows > self.fits:
            raise SendRefused
        self.batches.append(batch)

    def sent(self):
        return [[item.sequence for item in batch.items] for batch in self.batches]


@pytest.fixture
def worker():
    return Worker()


@pytest.fixture
def make_slot(worker):
    ids = itertools.count(1)

    def make(name="s", capacity=1, credits=2, send=None):
        slot = SlotScheduler(name, "cpu", 1 << 20, lambda: next(ids))
        slot.open(capacity, send or worker.send)
        slot.grant(credits)
        return slot

    return make


@pytest.fixture
def host():
    """Put a servable on a slot; its queues are those of the hosting."""
    ids = itertools.count(1)

    def put(slot, model="m", count=1, width=1, queues=None, **policy):
        queues = queues or ServableQueues(model, 10_000)
        hosting = Hosting(slot, next(ids), None, model, queues, Policy(**policy), count=count, width=width)
        queues.hostings.append(hosting)
        slot.host(hosting)
        return hosting

    return put


def push(hosting, item, key="k"):
    hosting.queues.push(key, [item])
    for each in hosting.queues.hostings:
        each.slot.wake(each)


def test_an_idle_slot_takes_all_that_waits(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    for _ in range(3):
        push(hosting, make_item())
    assert slot.pump(0) is None
    assert worker.sent() == [[0, 1, 2]]
    assert worker.batches[0].close_reason == "idle"
    assert (slot.credits, hosting.in_flight, hosting.queues.size) == (1, 1, 0)
    assert all(item.state == ItemState.DISPATCHED for item in worker.batches[0].items)


def test_shapes_go_in_batches_of_their_own(make_slot, host, worker, make_item):
    slot = make_slot(capacity=2, credits=4)
    hosting = host(slot, count=2)
    for key in "abab":
        push(hosting, make_item(), key)
    slot.pump(0)
    assert worker.sent() == [[0, 2], [1, 3]]


def test_models_share_a_slot_by_what_they_used(make_slot, host, worker, make_item):
    slot = make_slot(credits=1)
    a, b = host(slot, "a", max_rows=1), host(slot, "b", max_rows=1)
    for _ in range(4):
        push(a, make_item())
        push(b, make_item())
    order = []
    for now_ns in range(8):
        slot.pump(now_ns)
        batch = worker.batches[-1]
        order.append(batch.hosting.model)
        slot.charge(batch, 3 * MS if batch.hosting is a else 1 * MS, now_ns)
        slot.finish(batch.id, 1, now_ns)
    assert order == ["a", "b", "b", "b", "a", "b", "a", "a"]


def test_a_model_that_was_away_has_no_claim_on_the_past(make_slot, host, make_item):
    slot = make_slot()
    slot.used_ns = {"a": 500.0}
    a, b = host(slot, "a"), host(slot, "b")
    push(a, make_item())
    push(b, make_item())
    assert slot.used_ns["b"] == 500.0


def test_a_partial_batch_is_staged_just_before_the_running_one_ends(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    for _ in range(20):
        hosting.cost.observe(1, 10 * MS, 0)
    push(hosting, make_item())
    slot.pump(0)
    push(hosting, make_item())
    at_ns = slot.pump(1 * MS)
    assert at_ns == pytest.approx(10 * MS - LEAD_NS, abs=2)
    push(hosting, make_item())
    assert slot.pump(at_ns) is None
    assert worker.sent() == [[0], [1, 2]]
    assert (slot.credits, slot.ready_ns(at_ns)) == (0, at_ns + LEAD_NS + int(15 * MS))


def test_a_delay_is_asked_for_again_at_its_end(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot, max_delay_ns=5 * MS)
    push(hosting, make_item(enqueued_ns=2 * MS))
    assert slot.pump(3 * MS) == 7 * MS
    assert slot.pump(7 * MS) is None
    assert [batch.close_reason for batch in worker.batches] == ["delay"]


def test_a_refused_batch_is_halved_until_it_fits(make_slot, host, worker, make_item):
    slot = make_slot(capacity=1, credits=2)
    hosting = host(slot)
    worker.fits = 3
    items = [make_item() for _ in range(8)]
    for item in items:
        push(hosting, item)
    slot.pump(0)
    assert worker.sent() == [[0, 1], [2, 3, 4]]
    assert hosting.queues.by_key["k"].items == items[5:]
    assert all(item.state == ItemState.WAITING for item in items[5:])
    assert hosting.queues.size == 3


def test_a_refused_single_request_waits_for_room(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    worker.fits = 0
    item = make_item()
    push(hosting, item)
    assert slot.pump(0) is None
    worker.fits = 9
    assert slot.pump(1) is None
    assert (worker.batches, item.state, slot.credits) == ([], ItemState.WAITING, 2)
    slot.changed()
    slot.pump(2)
    assert worker.sent() == [[0]]


def test_room_comes_with_the_end_of_a_batch(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    push(hosting, make_item())
    slot.pump(0)
    worker.fits = 0
    push(hosting, make_item())
    slot.pump(1)
    worker.fits = 9
    slot.finish(worker.batches[0].id, 1, 2)
    slot.pump(2)
    assert worker.sent() == [[0], [1]]


def test_a_refused_suspect_stays_a_suspect(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    worker.fits = 0
    hosting.queues.suspect(make_item())
    slot.wake(hosting)
    slot.pump(0)
    assert len(hosting.queues.suspects.items) == hosting.queues.size == 1
    assert hosting.queues.by_key == {}


def test_what_can_never_be_sent_leaves_the_others_alone(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot, max_rows=1)
    worker.possible = 1
    push(hosting, impossible := make_item(rows=5))
    push(hosting, make_item())
    slot.pump(0)
    assert impossible.state == ItemState.SETTLED
    assert worker.sent() == [[1]]
    assert (slot.credits, hosting.in_flight, hosting.queues.size) == (1, 1, 0)


def test_suspects_run_one_by_one_on_an_empty_slot(make_slot, host, worker, make_item):
    slot = make_slot(capacity=2, credits=4)
    hosting = host(slot, count=2)
    push(hosting, make_item())
    slot.pump(0)
    for _ in range(2):
        hosting.queues.suspect(make_item())
    push(hosting, make_item())
    slot.pump(1)
    assert worker.sent() == [[0]]
    for batch_count in (2, 3):
        slot.finish(worker.batches[-1].id, 1, 2)
        slot.pump(2)
        assert len(worker.batches) == batch_count
    slot.finish(worker.batches[-1].id, 1, 3)
    slot.pump(3)
    assert worker.sent() == [[0], [1], [2], [3]]
    assert [batch.close_reason for batch in worker.batches] == ["idle", "suspect", "suspect", "idle"]


def test_close_returns_what_was_lost_oldest_first(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot, max_rows=1)
    for _ in range(3):
        push(hosting, make_item())
    slot.pump(0)
    assert slot.close() == worker.batches
    assert (slot.credits, slot.in_flight, slot.hostings, slot.usable) == (0, {}, {}, False)
    assert slot.pump(1) is None
    assert hosting.queues.size == 1
    assert slot.finish(worker.batches[0].id, 1, 1) is None


def test_a_slot_that_opens_again_starts_without_credits(make_slot, host, worker, make_item):
    slot = make_slot()
    slot.close()
    slot.open(1, worker.send)
    push(host(slot), make_item())
    slot.pump(0)
    assert worker.batches == []
    slot.grant(1)
    slot.pump(1)
    assert worker.sent() == [[0]]


def test_unhosted_servables_get_nothing_more(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    push(hosting, make_item())
    slot.unhost(hosting.id)
    slot.pump(0)
    assert worker.batches == []


def test_no_more_than_one_running_and_one_staged_for_each_count(make_slot, host, worker, make_item):
    slot = make_slot(capacity=4, credits=8)
    hosting = host(slot, count=1, max_rows=1)
    for _ in range(9):
        push(hosting, make_item())
    slot.pump(0)
    assert len(worker.batches) == 2


@pytest.mark.parametrize(
    ("capacity", "batches", "expected"),
    [
        # (width, count) of each batch in the order sent
        (1, [(1, 1), (1, 1)], [0]),
        (2, [(1, 2), (1, 2), (1, 2)], [0, 1]),
        (2, [(1, 1), (1, 1)], [0, 1]),
        (2, [(2, 1), (1, 1)], [0]),
        (3, [(2, 1), (2, 1), (1, 1)], [0]),  # the wide one is not overtaken
        (2, [(8, 1), (1, 1)], [0]),
    ],
)
def test_running_follows_the_rule_of_the_workers_executor(
    make_slot, host, make_item, worker, capacity, batches, expected
):
    slot = make_slot(capacity=capacity, credits=100)
    for i, (width, count) in enumerate(batches):
        slot.credits = 100
        push(host(slot, f"m{i}", count=count, width=width), make_item())
        slot.pump(i)
    ids = [batch.id for batch in worker.batches]
    assert len(ids) == len(batches)
    assert slot.running() == {ids[i] for i in expected}


def test_a_suspect_runs_once_the_worker_says_so(make_slot, host, worker, make_item):
    """Until then other gateways' batches may be before it."""
    slot = make_slot(capacity=2, credits=4)
    hosting = host(slot)
    hosting.queues.suspect(make_item())
    slot.wake(hosting)
    slot.pump(0)
    (batch,) = worker.batches
    assert batch.alone
    assert slot.running() == set()
    slot.begin(batch.id + 1)
    assert slot.running() == set()
    slot.begin(batch.id)
    assert slot.running() == {batch.id}


def test_running_counts_each_servable(make_slot, host, worker, make_item):
    slot = make_slot(capacity=3, credits=6)
    hosting = host(slot, count=1, max_rows=1)
    for _ in range(2):
        push(hosting, make_item())
    slot.pump(0)
    assert len(worker.batches) == 2
    assert slot.running() == {worker.batches[0].id}


def test_a_run_hangs_when_nothing_came_back_for_its_limit(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot, max_rows=1)
    assert slot.hung_at_ns(lambda batch: 100) is None
    for _ in range(2):
        push(hosting, make_item())
    slot.pump(10)
    assert slot.hung_at_ns(lambda batch: 100) == 110
    slot.finish(worker.batches[0].id, 1, 50)
    assert slot.hung_at_ns(lambda batch: 100) == 150
    slot.finish(worker.batches[1].id, 1, 60)
    assert slot.hung_at_ns(lambda batch: 100) is None


def test_progress_of_others_does_not_hide_a_hang_for_ever(make_slot, host, worker, make_item):
    slot = make_slot(capacity=2, credits=4)
    hosting = host(slot, count=2, max_rows=1)
    for _ in range(2):
        push(hosting, make_item())
    slot.pump(0)
    slot.finish(worker.batches[1].id, 1, 190)
    assert slot.hung_at_ns(lambda batch: 100) == 200


def test_two_slots_share_the_queues_of_one_servable(make_slot, host, make_item):
    left, right = Worker(), Worker()
    one, two = make_slot("one", send=left.send), make_slot("two", send=right.send)
    queues = ServableQueues("m", 100)
    hostings = [host(slot, queues=queues) for slot in (one, two)]
    for hosting in hostings:
        for rows in (1, 8) * 20:
            hosting.cost.observe(rows, rows * MS, 0)
    for _ in range(6):
        push(hostings[0], make_item())
    one.pump(0)
    two.pump(0)
    assert (left.sent(), right.sent()) == ([[0, 1, 2]], [[3, 4, 5]])


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@pytest.mark.slow
def test_credits_are_conserved(make_item, data):
    """Whatever is sent, refused and finished: credits held and credits in flight are what was granted."""
    ids = itertools.count(1)
    slot = SlotScheduler("s", "cpu", 1 << 20, lambda: next(ids))
    worker = Worker(fits=data.draw(st.integers(1, 8)), possible=data.draw(st.integers(1, 8)))
    capacity = data.draw(st.integers(1, 3))
    slot.open(capacity, worker.send)
    slot.grant(granted := 2 * capacity)
    hostings = []
    for i in range(data.draw(st.integers(1, 3))):
        queues = ServableQueues(f"m{i}", 1000)
        width = data.draw(st.integers(1, 3))
        hosting = Hosting(slot, i, None, f"m{i}", queues, Policy(max_rows=4), count=1, width=width)
        queues.hostings.append(hosting)
        slot.host(hosting)
        hostings.append(hosting)
    pushed = 0
    for now_ns in range(data.draw(st.integers(1, 30))):
        for _ in range(data.draw(st.integers(0, 3))):
            rows = data.draw(st.integers(1, 4))
            push(data.draw(st.sampled_from(hostings)), make_item(rows=rows), data.draw(st.sampled_from("ab")))
            pushed += 1
        slot.pump(now_ns)
        if slot.in_flight and data.draw(st.booleans()):
            batch = next(iter(slot.in_flight.values()))
            slot.charge(batch, 1000, now_ns)
            assert slot.finish(batch.id, batch.hosting.width, now_ns) is batch
        in_flight = sum(batch.hosting.width for batch in slot.in_flight.values())
        assert slot.credits + in_flight == granted
        assert len(slot.running()) <= capacity
        waiting = sum(hosting.queues.size for hosting in hostings)
        assert waiting + sum(len(batch.items) for batch in worker.batches) <= pushed
        assert {hosting.in_flight for hosting in hostings} <= {0, 1, 2}
    while slot.in_flight:
        batch = next(iter(slot.in_flight.values()))
        slot.finish(batch.id, batch.hosting.width, 100)
    assert slot.credits == granted


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_what_is_sent_at_once_is_what_the_decision_would_send(make_item, data):
    """The short way is taken only where the long way leads to the same batch now."""
    draw = data.draw
    rows, now_ns = draw(st.integers(1, 4)), 10 * MS
    deadlines = draw(
        st.lists(
            st.sampled_from([*[NEVER] * 8, now_ns, now_ns + MS, 20 * MS, 99 * MS]), min_size=1, max_size=12
        )
    )
    policy = {"max_rows": draw(st.integers(1, 32)), "max_delay_ns": draw(st.sampled_from([0, 0, MS]))}
    max_batch_bytes, credits, width = (
        draw(st.sampled_from([8, 64, 1 << 20])),
        draw(st.integers(0, 3)),
        draw(st.integers(1, 2)),
    )
    costs = draw(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 30 * MS)), max_size=3))
    fits = draw(st.sampled_from([1000, 1000, 3]))
    busy, other = draw(st.integers(0, 5)) == 1, draw(st.integers(0, 2)) == 1
    sent = []
    for at_once in (True, False):
        ids = itertools.count(1)
        slot, worker = SlotScheduler("s", "cpu", max_batch_bytes, lambda ids=ids: next(ids)), Worker()
        slot.open(1, worker.send)
        slot.grant(4)
        hosting, another = (
            Hosting(
                slot, i, None, f"m{i}", ServableQueues(f"m{i}", 100), Policy(**policy), count=2, width=width
            )
            for i in (1, 2)
        )
        for each in (hosting, another):
            each.queues.hostings.append(each)
            slot.host(each)
        for ran in costs:
            hosting.observe("k", *ran, now_ns)
        if busy:
            push(another, make_item())
            slot.wake(another)
            slot.pump(now_ns)
        if other:
            push(another, make_item(enqueued_ns=now_ns))
            slot.wake(another)
        slot.credits = credits
        worker.fits, worker.batches = fits, []
        items = [make_item(rows=rows, deadline_ns=at_ns, enqueued_ns=now_ns) for at_ns in deadlines]
        if at_once:
            taken = slot.send_at_once(now_ns, hosting, items)
            assert all((item.state == ItemState.WAITING) != taken for item in items)
        else:
            hosting.queues.push(items[0].plan.key, items)
            slot.wake(hosting)
            slot.pump(now_ns)
        sent.append([(len(batch.items), batch.rows, batch.close_reason) for batch in worker.batches])
        assert slot.credits == credits - width * len(worker.batches)
        assert hosting.in_flight == len(worker.batches) if not other else True
    if taken:
        assert sent[0] == sent[1]
    else:
        assert sent[0] == []


def test_new_requests_on_an_idle_slot_are_sent_without_waiting(make_slot, host, worker, make_item):
    slot = make_slot()
    hosting = host(slot)
    assert slot.send_at_once(0, hosting, [make_item(), make_item()])
    assert worker.sent() == [[0, 1]]
    assert not slot.send_at_once(0, hosting, [make_item()])  # it is busy now
    assert slot.finish(1, 1, 0) is worker.batches[0]
    assert slot.send_at_once(0, hosting, [make_item()])
