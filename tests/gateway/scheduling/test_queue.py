from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.scheduling.decision import NEVER
from gateway.scheduling.queue import QueueFull, RequestQueue, ServableQueues


def test_order_is_priority_then_deadline_then_arrival(make_item):
    queue = RequestQueue("k")
    late = make_item(deadline_ns=900)
    soon = make_item(deadline_ns=100)
    twin = make_item(deadline_ns=100)
    low = make_item(deadline_ns=1, priority=2)
    for item in (low, late, twin, soon):
        queue.push([item])
    assert queue.items == [soon, twin, late, low]


def test_requests_without_a_deadline_are_not_starved(make_item):
    queue = RequestQueue("k")
    without = make_item(implied_ns=500)
    assert without.deadline_ns == NEVER
    queue.push([make_item(deadline_ns=600)])
    queue.push([without])
    assert queue.items[0] is without


@pytest.mark.slow
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_removing_and_taking_keep_the_order(make_item, data):
    queue = RequestQueue("k")
    count = data.draw(st.integers(1, 12))
    for _ in range(count):
        queue.push(
            [make_item(deadline_ns=data.draw(st.integers(1, 5)), priority=data.draw(st.integers(0, 2)))]
        )
    expected = list(queue.items)
    gone = data.draw(st.sampled_from(expected))
    queue.remove(gone)
    expected.remove(gone)
    assert queue.items == expected
    if expected:
        picks = sorted(data.draw(st.sets(st.integers(0, len(expected) - 1), min_size=1)))
        assert queue.take(picks) == [expected[i] for i in picks]
        assert queue.items == [item for i, item in enumerate(expected) if i not in picks]
    for item in list(queue.items):
        queue.remove(item)
    assert queue.items == []


def test_full_queue_has_no_room_and_says_its_limit(make_item):
    queues = ServableQueues("m", 2)
    queues.push("a", [make_item()])
    assert queues.room == 1
    queues.push("b", [make_item(), make_item()])  # what comes back may be more
    assert queues.room == 0
    assert isinstance(queues.full(), QueueFull)
    assert str(queues.full()) == "model m: the queue is full (2 requests)"


def test_what_comes_back_is_never_refused(make_item):
    queues = ServableQueues("m", 1)
    queues.push("a", [make_item()])
    (taken,) = queues.take(queues.by_key["a"], [0])
    queues.push("a", [make_item()])
    queues.push("a", [taken])
    assert queues.size == 2
    assert queues.by_key["a"].items[0] is taken


def test_empty_queues_disappear(make_item):
    queues = ServableQueues("m", 9)
    a, b = make_item(), make_item()
    queues.push("a", [a])
    queues.push("b", [b])
    assert [queue.key for queue in queues.nonempty()] == ["a", "b"]
    queues.remove(a)
    assert list(queues.by_key) == ["b"]
    queues.take(queues.by_key["b"], [0])
    assert queues.nonempty() == []
    assert queues.size == 0


def test_suspects_have_a_queue_of_their_own(make_item):
    queues = ServableQueues("m", 9)
    suspect, other = make_item(), make_item()
    queues.suspect(suspect)
    queues.push("a", [other])
    assert [(queue.key, queue.alone) for queue in queues.nonempty()] == [("a", False), ("suspects", True)]
    queues.remove(suspect)
    assert queues.suspects.items == []
    assert queues.size == 1


def test_drain_returns_everything(make_item):
    queues = ServableQueues("m", 9)
    items = [make_item() for _ in range(3)]
    queues.push("a", [items[0]])
    queues.push("b", [items[1]])
    queues.suspect(items[2])
    assert queues.drain() == items
    assert (queues.size, queues.nonempty()) == (0, [])
    queues.push("a", [items[0]])
    queues.suspect(items[2])
    assert queues.size == 2


def test_a_queue_knows_whether_its_items_are_alike(make_item):
    queue = RequestQueue("k")
    queue.push([make_item(rows=2), make_item(rows=2)])
    assert queue.even == 2
    queue.push([make_item(rows=3)])
    assert queue.even == 0
    queue.take([0, 1, 2])
    queue.push([make_item(rows=3)])
    assert queue.even == 3
    queue.push([make_item(rows=3, priority=1)])
    assert queue.even == 0
