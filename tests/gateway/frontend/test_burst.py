from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.frontend.burst import HOLD_NS_PER_CALLER, MAX_CALLS, MAX_QUIET_TURNS, Burst

MS = 1_000_000


class Turns:
    """A loop whose turns are taken by hand, and its clock."""

    def __init__(self):
        self.due = []
        self.ns = 10 * 1000 * MS

    def call_soon(self, callback):
        self.due.append(callback)

    def now_ns(self):
        return self.ns

    def turn(self):
        due, self.due = self.due, []
        for callback in due:
            callback()


@pytest.fixture
def turns():
    return Turns()


@pytest.fixture
def seen():
    return SimpleNamespace(bursts=[], cancels=[])


@pytest.fixture
def burst(turns, seen):
    return Burst(turns, turns, lambda calls: seen.bursts.append(len(calls)), seen.cancels.extend)


def arrive(burst, turns, count=1, waiting=None):
    for _ in range(count):
        burst.add(SimpleNamespace(arrived_ns=turns.ns), count if waiting is None else waiting)


def test_lone_caller_is_handed_over_at_the_next_turn(burst, turns, seen):
    arrive(burst, turns)
    turns.turn()
    assert seen.bursts == [1]


def test_burst_is_held_while_others_arrive_and_handed_over_after_quiet_turns(burst, turns, seen):
    for waiting in range(20, 30):
        arrive(burst, turns, waiting=waiting)
        turns.turn()
    assert seen.bursts == []
    for _ in range(MAX_QUIET_TURNS):
        turns.turn()
    assert seen.bursts == [10]
    assert not turns.due


def test_few_callers_wait_for_fewer_quiet_turns(burst, turns, seen):
    arrive(burst, turns, count=2)
    turns.turn()
    assert seen.bursts == []
    turns.turn()
    assert seen.bursts == [2]


def test_no_burst_is_held_longer_than_its_callers_allow(burst, turns, seen):
    arrive(burst, turns, waiting=4)
    turns.ns += 4 * HOLD_NS_PER_CALLER
    arrive(burst, turns, waiting=4)
    turns.turn()
    assert seen.bursts == [2]


def test_full_burst_is_not_held(burst, turns, seen):
    arrive(burst, turns, count=MAX_CALLS)
    turns.turn()
    assert seen.bursts == [MAX_CALLS]


def test_cancellation_is_not_held_and_comes_after_its_call(burst, turns, seen):
    arrive(burst, turns, count=10)
    burst.cancel(7)
    turns.turn()
    assert (seen.bursts, seen.cancels) == ([10], [7])


def test_concurrency_of_long_ago_holds_nobody(burst, turns, seen):
    arrive(burst, turns, count=30)
    for _ in range(MAX_QUIET_TURNS + 1):
        turns.turn()
    turns.ns += 1000 * MS
    arrive(burst, turns, waiting=1)
    turns.turn()
    assert seen.bursts == [30, 1]
