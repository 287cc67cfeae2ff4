from __future__ import annotations

import gc
import weakref

from gateway.scheduling.deadlines import Deadlines
from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import ItemState


def test_expired_items_come_in_the_order_of_their_deadlines(make_item):
    deadlines = Deadlines()
    items = [make_item(deadline_ns=at) for at in (300, 100, 200, 100)]
    for item in items:
        deadlines.add(item)
    assert deadlines.next_ns() == 100
    assert deadlines.expired(200) == [items[1], items[3], items[2]]
    assert deadlines.next_ns() == 300
    assert deadlines.expired(299) == []


def test_without_a_deadline_nothing_is_kept(make_item):
    deadlines = Deadlines()
    deadlines.add(make_item(deadline_ns=NEVER))
    assert len(deadlines) == 0
    assert deadlines.next_ns() is None


def test_settled_items_neither_expire_nor_set_the_alarm(make_item):
    deadlines = Deadlines()
    settled, other = make_item(deadline_ns=100), make_item(deadline_ns=200)
    deadlines.add(settled)
    deadlines.add(other)
    settled.state = ItemState.SETTLED
    assert deadlines.next_ns() == 200
    assert deadlines.expired(1000) == [other]


def test_dispatched_items_still_expire(make_item):
    deadlines = Deadlines()
    item = make_item(deadline_ns=100)
    deadlines.add(item)
    item.state = ItemState.DISPATCHED
    assert deadlines.expired(100) == [item]


def test_ten_thousand_cancels_leave_no_more_than_a_thousand_entries(make_item):
    deadlines = Deadlines()
    first = make_item(deadline_ns=1)  # lives, so that nothing behind it is popped
    deadlines.add(first)
    for i in range(10_000):
        item = make_item(deadline_ns=10**9 + i)
        deadlines.add(item)
        item.state = ItemState.SETTLED
    assert len(deadlines) <= 1100
    assert deadlines.expired(10**10) == [first]


def test_compaction_keeps_what_is_alive(make_item):
    deadlines = Deadlines()
    items = [make_item(deadline_ns=10_000 - i) for i in range(3000)]
    for item in items:
        deadlines.add(item)
    for item in items[::2]:
        item.state = ItemState.SETTLED
    for i in range(3000):
        deadlines.add(done := make_item(deadline_ns=20_000 + i))
        done.state = ItemState.SETTLED
    assert len(deadlines) < 4000
    assert deadlines.expired(NEVER) == items[::-1][::2]


def test_a_settled_request_and_its_tensors_are_not_kept_until_the_deadline(make_item):
    deadlines = Deadlines()
    item = make_item(deadline_ns=10**12)
    deadlines.add(item)
    watched = weakref.ref(item)
    item.state = ItemState.SETTLED
    del item
    gc.collect()
    assert watched() is None
    assert deadlines.next_ns() is None
