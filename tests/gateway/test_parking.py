"""Calls that wait for a version: in order, bounded, and each leaves once."""

from __future__ import annotations

import pytest

from gateway.call import Call
from gateway.parking import LONGEST_WAIT_NS, Awaited, Parking, TooManyWait
from gateway.routing.table import ModelAsleep, Waits
from gateway.scheduling.decision import NEVER

A, B = Awaited("m", "1"), Awaited("m", "2")


class NoOrigin:
    def settle(self, replies):
        raise AssertionError("parking settles nothing")

    settle_batch = settle


def call(id_):
    return Call(id=id_, origin=NoOrigin(), model="m", inputs=(), arrived_ns=0)


@pytest.fixture
def parking():
    return Parking()


def park(parking, id_, awaited=A, *, now_ns=0, due_ns=NEVER, most=10):
    parking.park(call(id_), ModelAsleep(*awaited, Waits(most)), now_ns, due_ns)


def ids(calls):
    return [each.id for each in calls]


def test_calls_leave_in_the_order_in_which_they_came(parking):
    for id_ in (3, 1, 2):
        park(parking, id_)
    park(parking, 9, B)
    assert (len(parking), parking.awaited()) == (4, [A, B])
    assert ids(parking.take(A)) == [3, 1, 2]
    assert (len(parking), parking.awaited(), parking.take(A)) == (1, [B], [])


def test_no_more_wait_for_a_version_than_its_queue_would_hold(parking):
    park(parking, 1, most=2)
    park(parking, 2, most=2)
    with pytest.raises(TooManyWait, match="2 requests wait, its max_queue_size") as refused:
        park(parking, 3, most=2)
    assert refused.value.retry_after_ms
    park(parking, 4, B, most=2)  # it counts for each version
    assert ids(parking.take(A)) == [1, 2]


def test_one_that_left_makes_room(parking):
    park(parking, 1, most=1)
    assert ids(parking.cancel([1])) == [1]
    park(parking, 2, most=1)
    assert ids(parking.take(A)) == [2]


def test_cancelled_calls_leave_and_others_are_passed_over(parking):
    for id_ in (1, 2, 3):
        park(parking, id_)
    assert ids(parking.cancel([7, 2, 2])) == [2]
    assert ids(parking.take(A)) == [1, 3]
    assert parking.cancel([1]) == []


def test_expired_calls_leave_at_their_time_and_once(parking):
    park(parking, 1, due_ns=300)
    park(parking, 2, B, due_ns=100)
    park(parking, 3, due_ns=200)
    assert parking.next_ns() == 100
    assert parking.expired(99) == []
    assert ids(parking.expired(200)) == [2, 3]
    assert (parking.expired(200), parking.next_ns(), len(parking)) == ([], 300, 1)


def test_the_deadline_of_one_that_left_wakes_nobody(parking):
    park(parking, 1, due_ns=100)
    park(parking, 2, B, due_ns=200)
    parking.take(A)
    assert parking.next_ns() == 200
    parking.cancel([2])
    assert parking.next_ns() is None
    assert parking.expired(NEVER) == []


def test_without_a_deadline_one_waits_no_longer_than_a_load_may_take(parking):
    park(parking, 1, now_ns=50)
    assert parking.next_ns() == 50 + LONGEST_WAIT_NS
    assert ids(parking.expired(50 + LONGEST_WAIT_NS)) == [1]


def test_one_that_comes_back_waits_again(parking):
    park(parking, 1, due_ns=100)
    (again,) = parking.take(A)
    parking.park(again, ModelAsleep(*B, Waits(10)), 10, 100)
    assert (parking.awaited(), ids(parking.expired(100)), parking.expired(NEVER)) == ([B], [1], [])
