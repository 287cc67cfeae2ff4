from __future__ import annotations

import pytest

from gateway.telemetry.outcome import Outcome
from gateway.telemetry.recent import Recent, RecentRequest, Ring
from gateway.telemetry.sampling import SampledBy
from gateway.telemetry.trace import Execution

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def entry(settled_ns=100, **fields):
    fields = {"model": "m", "arrived_ns": 10, "arrived_unix_ns": 0, **fields}
    return RecentRequest(SampledBy.SLOW, Outcome.OK, settled_ns=settled_ns, **fields)


def test_requests_are_found_by_their_id_and_by_their_trace_the_newest_first():
    recent = Recent()
    recent.slow.add(entry(100, request_id="r", trace_id=TRACE))
    recent.failed.add(entry(200, request_id="r"))
    recent.failed.add(entry(300, request_id="other"))
    assert [e.settled_ns for e in recent.find("r")] == [200, 100]
    assert [e.settled_ns for e in recent.find(TRACE.upper())] == [100]
    assert recent.find("unknown") == recent.find("") == []


def test_long_id_is_found_as_it_was_cut():
    recent = Recent()
    recent.slow.add(entry(request_id="x" * 256))
    assert len(recent.find("x" * 5000)) == 1


def test_latest_are_of_all_models_or_of_one():
    recent = Recent()
    for i in range(10):
        recent.slow.add(entry(i, model="even" if i % 2 == 0 else "odd"))
    assert [e.settled_ns for e in recent.latest(3)] == [9, 8, 7]
    assert [e.settled_ns for e in recent.latest(3, "even")] == [8, 6, 4]


def test_failed_requests_do_not_push_out_slow_ones():
    recent = Recent(max_count=4)
    recent.slow.add(entry(request_id="slow"))
    for _ in range(100):
        recent.failed.add(entry())
    assert (len(recent.slow), len(recent.failed)) == (1, 4)


@pytest.mark.parametrize("text", ["request_id", "route", "message"])
def test_ring_is_bounded_in_bytes_whatever_callers_write(text):
    ring = Ring(max_count=1000, max_bytes=20_000)
    for i in range(50):
        ring.add(entry(i, **{text: "x" * 1000}))
    assert ring.size_bytes <= 20_000
    assert [e.settled_ns for e in ring] == [49, 48, 47]


def test_no_more_are_admitted_than_can_be_afforded():
    ring = Ring(max_count=10, max_bytes=20_000)
    assert sum(ring.admit(1_000_000_000) for _ in range(10_000)) == 1000
    assert sum(ring.admit(2_000_000_000) for _ in range(10_000)) == 500


def test_phases_tell_of_the_whole_time():
    where = Execution("cpu", "cpu-0", 4, 2, "full", 30, 40, 50, 60, 70)
    found = entry(100, enqueued_ns=20, execution=where)
    assert [phase.name for phase in found.phases] == ["admission", "queue", "arena", "wait", "run", "reply"]
    assert (found.phases[0].start_ns, found.phases[-1].end_ns) == (10, 100)
    assert found.total_ns == 90


def test_refused_request_has_nothing_but_its_admission():
    assert entry(30).phases == [("admission", 10, 30)]
