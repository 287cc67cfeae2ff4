from __future__ import annotations

import pytest

from gateway.workerpool.backoff import Backoff


def test_the_first_failure_is_tried_again_at_once_and_then_it_doubles():
    backoff = Backoff(first_s=0.1, limit_s=1.0, seed=1)
    waits = [backoff.after_s(0) for _ in range(8)]
    assert waits[0] == 0
    for wait, middle in zip(waits[1:], [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], strict=True):
        assert 0.75 * middle <= wait <= 1.25 * middle


def test_a_long_good_time_forgives():
    backoff = Backoff(first_s=1, forgiven_after_s=30)
    assert [backoff.after_s(0) > 0 for _ in range(3)] == [False, True, True]
    assert backoff.after_s(29) > 0
    assert backoff.after_s(30) == 0
    assert backoff.failures == 1


def test_many_failures_stay_at_the_limit():
    backoff = Backoff(first_s=0.1, limit_s=30, seed=0)
    for _ in range(5000):
        wait_s = backoff.after_s(0)
    assert wait_s == pytest.approx(30, rel=0.25)


def test_two_do_not_wait_in_step():
    one, other = Backoff(seed=1), Backoff(seed=2)
    assert [one.after_s(0) for _ in range(4)] != [other.after_s(0) for _ in range(4)]
