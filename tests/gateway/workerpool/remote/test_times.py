from __future__ import annotations

from gateway.workerpool.remote.times import arrived, departing, due_ns, left_ns
from wire.frames import Done, Outcome


def test_deadline_travels_as_what_is_left_of_it():
    assert due_ns(left_ns(1_500, 1_000), 77_000) == 77_500


def test_deadline_that_has_passed_stays_one():
    assert due_ns(left_ns(900, 1_000), 77_000) == 77_001


def test_no_deadline_stays_none():
    assert due_ns(left_ns(0, 1_000), 77_000) == 0


def test_times_keep_their_distances_on_another_clock():
    done = Done(Outcome.OK, 1, received_ns=100, started_ns=150, ran_ns=200, run_ns=70, ended_ns=300)
    there = arrived(departing(done, 310), 9_000)
    assert there == Done(
        Outcome.OK, 1, received_ns=8_790, started_ns=8_840, ran_ns=8_890, run_ns=70, ended_ns=8_990
    )


def test_times_that_are_not_given_stay_so():
    done = Done(Outcome.CANCELLED, 1)
    assert arrived(departing(done, 310), 9_000) == done


def test_time_of_this_moment_is_not_taken_for_none():
    done = Done(Outcome.OK, 1, ended_ns=310)
    assert arrived(departing(done, 310), 9_000).ended_ns == 8_999
