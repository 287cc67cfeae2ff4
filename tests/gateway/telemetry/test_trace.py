from __future__ import annotations

import pytest

from gateway.telemetry.trace import Execution, phase_count, phases


def execution(dispatched_ns, received_ns=0, started_ns=0, run_start_ns=0, run_end_ns=0):
    return Execution(
        "cpu", "cpu-0", 1, 1, "idle", dispatched_ns, received_ns, started_ns, run_start_ns, run_end_ns
    )


@pytest.mark.parametrize(
    ("enqueued_ns", "where", "settled_ns", "expected"),
    [
        (0, None, 90, []),
        (10, None, 90, [("queue", 10, 90)]),
        (
            10,
            execution(20, 30, 40, 50, 60),
            90,
            [("queue", 10, 20), ("arena", 20, 30), ("wait", 30, 40), ("run", 50, 60), ("reply", 60, 90)],
        ),
        (10, execution(20), 90, [("queue", 10, 20), ("wait", 20, 90)]),  # never answered
        (10, execution(20, 0, 40), 90, [("queue", 10, 20), ("wait", 20, 40), ("run", 40, 90)]),  # failed
        (
            10,
            execution(20, 15, 40, 50, 120),  # a remote worker's times
            90,
            [("queue", 10, 20), ("arena", 20, 20), ("wait", 20, 40), ("run", 50, 90), ("reply", 90, 90)],
        ),
    ],
)
def test_phases_follow_each_other_and_end_with_the_request(enqueued_ns, where, settled_ns, expected):
    assert phases(enqueued_ns, where, settled_ns) == expected
    assert phase_count(enqueued_ns, where) == len(expected)
