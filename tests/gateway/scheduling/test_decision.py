"""The decision as a table: a snapshot of one slot and its queues, and what the slot does next."""

from __future__ import annotations

import ast
import inspect
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling import decision as module
from gateway.scheduling.cost import UNKNOWN, Cost
from gateway.scheduling.decision import (
    IDLE,
    LEAD_NS,
    NEVER,
    Decision,
    Elsewhere,
    Entry,
    Idle,
    QueueView,
    Run,
    SlotView,
    WaitUntil,
    decide,
)

MS = 1_000_000
NOW = 1_000 * MS
FAST = Cost(fixed_ns=1 * MS, per_row_ns=1 * MS, floor_ns=2 * MS)
SLOW = Cost(fixed_ns=4 * MS, per_row_ns=4 * MS, floor_ns=8 * MS)


def entry(rows=1, size_bytes=4, deadline_ms=None, age_ms=0.0):
    """A waiting request whose deadline is so many milliseconds from now."""
    deadline_ns = NEVER if deadline_ms is None else NOW + int(deadline_ms * MS)
    return Entry(rows, size_bytes, deadline_ns, NOW - int(age_ms * MS))


def queue(*entries, **changes):
    view = QueueView(
        entries=entries or (entry(),),
        waiting=len(entries) or 1,
        band=0,
        used_ns=0.0,
        max_rows=8,
        max_delay_ns=0,
        width=1,
        room=2,
        cost=UNKNOWN,
    )
    return view._replace(**changes)


def slot(**changes):
    return SlotView(credits=2, in_flight=0, idle=True, ready_ns=NOW, max_batch_bytes=1000)._replace(**changes)


def busy(ready_ms, credits=1, in_flight=1):
    return slot(credits=credits, in_flight=in_flight, idle=False, ready_ns=NOW + int(ready_ms * MS))


def there(ready_ms=0.0, cost=FAST):
    return Elsewhere(NOW + int(ready_ms * MS), ready_ms <= 0, cost)


def wait(ms):
    return WaitUntil(NOW + int(ms * MS))


class Row(NamedTuple):
    name: str
    slot: SlotView
    queues: list[QueueView]
    expected: Decision


FOUR = (entry(), entry(), entry(), entry())
EIGHT = FOUR * 2

TABLE = [
    # nothing to do
    Row("no_queues", slot(), [], IDLE),
    Row("an_empty_queue", slot(), [queue()._replace(entries=(), waiting=0)], IDLE),
    Row("no_credits", slot(credits=0), [queue()], IDLE),
    Row("no_room_for_this_servable", slot(), [queue(room=0)], IDLE),
    Row("no_room_for_one_leaves_the_other", slot(), [queue(room=0), queue()], Run(1, [0], "idle")),
    # an idle slot
    Row("one_request_runs_at_once", slot(), [queue()], Run(0, [0], "idle")),
    Row("all_that_waits_runs_together", slot(), [queue(*FOUR)], Run(0, [0, 1, 2, 3], "idle")),
    Row("rows_are_counted_not_requests", slot(), [queue(entry(5), entry(3))], Run(0, [0, 1], "full")),
    Row("a_full_batch", slot(), [queue(*EIGHT)], Run(0, list(range(8)), "full")),
    Row("a_batch_never_exceeds_its_size", slot(), [queue(entry(6), entry(3))], Run(0, [0], "full")),
    Row(
        "what_does_not_fit_ends_the_batch", slot(), [queue(entry(6), entry(3), entry(1))], Run(0, [0], "full")
    ),
    Row("larger_than_the_limit_runs_alone", slot(), [queue(entry(20), entry(1))], Run(0, [0], "full")),
    Row("max_rows_one_runs_singly", slot(), [queue(*FOUR, max_rows=1)], Run(0, [0], "full")),
    Row("bytes_limit", slot(), [queue(entry(1, 600), entry(1, 600))], Run(0, [0], "bytes")),
    Row("bytes_limit_is_inclusive", slot(), [queue(entry(1, 500), entry(1, 500))], Run(0, [0, 1], "idle")),
    Row("too_many_bytes_run_alone", slot(), [queue(entry(1, 5000), entry(1, 1))], Run(0, [0], "bytes")),
    Row("an_entry_without_rows_is_skipped", slot(), [queue(entry(0), entry(1))], Run(0, [1], "idle")),
    # which queue
    Row(
        "mixed_shapes_do_not_mix",
        slot(),
        [queue(entry(), entry()), queue(entry(age_ms=1))],
        Run(1, [0], "idle"),
    ),
    Row("oldest_head_first", slot(), [queue(entry(age_ms=1)), queue(entry(age_ms=2))], Run(1, [0], "idle")),
    Row(
        "a_tie_goes_to_the_first",
        slot(),
        [queue(entry(age_ms=1)), queue(entry(age_ms=1))],
        Run(0, [0], "idle"),
    ),
    Row(
        "nearest_deadline_before_oldest",
        slot(),
        [queue(entry(age_ms=9)), queue(entry(deadline_ms=50))],
        Run(1, [0], "idle"),
    ),
    Row(
        "least_used_model_before_deadline",
        slot(),
        [queue(entry(deadline_ms=50), used_ns=2.0), queue(used_ns=1.0)],
        Run(1, [0], "idle"),
    ),
    Row(
        "fair_share_by_device_time",
        slot(),
        [queue(*EIGHT, used_ns=5e6), queue(used_ns=4e6), queue(used_ns=6e6)],
        Run(1, [0], "idle"),
    ),
    Row(
        "priority_before_fair_share",
        slot(),
        [queue(band=2, used_ns=0.0), queue(band=1, used_ns=9e9)],
        Run(1, [0], "idle"),
    ),
    Row(
        "priority_before_deadline",
        slot(),
        [queue(entry(deadline_ms=1), band=2), queue(band=1)],
        Run(1, [0], "idle"),
    ),
    Row(
        "a_higher_band_that_only_waits_does_not_block",
        slot(),
        [queue(band=1, max_delay_ns=5 * MS), queue(band=2)],
        Run(1, [0], "idle"),
    ),
    # deadlines
    Row(
        "doomed_entry_is_skipped",
        slot(),
        [queue(entry(deadline_ms=1), entry(), cost=FAST)],
        Run(0, [1], "idle"),
    ),
    Row("only_doomed_entries", slot(), [queue(entry(deadline_ms=1), cost=FAST)], IDLE),
    Row("deadline_met_at_the_floor", slot(), [queue(entry(deadline_ms=2), cost=FAST)], Run(0, [0], "idle")),
    Row(
        "nearer_than_the_measured_run_is_still_tried",
        slot(),
        [queue(entry(deadline_ms=3), cost=Cost(5 * MS, 1 * MS, 0, 2 * MS))],
        Run(0, [0], "idle"),
    ),
    Row(
        "batch_stops_at_the_nearest_deadline",
        slot(),
        [queue(entry(deadline_ms=4), *FOUR, cost=FAST)],
        Run(0, [0, 1, 2], "deadline"),
    ),
    Row(
        "a_later_member_with_a_near_deadline_is_left_out",
        slot(),
        [queue(entry(), entry(), entry(deadline_ms=3), cost=FAST)],
        Run(0, [0, 1], "deadline"),
    ),
    Row(
        "measured_error_counts_against_the_deadline",
        slot(),
        [queue(entry(deadline_ms=4), *FOUR, cost=FAST._replace(error_ns=1 * MS))],
        Run(0, [0, 1], "deadline"),
    ),
    Row(
        "unknown_cost_predicts_nothing",
        slot(),
        [queue(entry(deadline_ms=0.001), *FOUR)],
        Run(0, [0, 1, 2, 3, 4], "idle"),
    ),
    Row("a_passed_deadline_does_not_run", slot(), [queue(entry(deadline_ms=-1))], IDLE),
    Row(
        "doomed_counts_from_when_the_slot_is_free",
        busy(10),
        [queue(entry(deadline_ms=11), cost=FAST)],
        IDLE,
    ),
    # delay
    Row(
        "delay_waits_from_the_oldest", slot(), [queue(entry(age_ms=2), entry(), max_delay_ns=5 * MS)], wait(3)
    ),
    Row(
        "delay_is_over",
        slot(),
        [queue(entry(age_ms=5), entry(), max_delay_ns=5 * MS)],
        Run(0, [0, 1], "delay"),
    ),
    Row(
        "delay_ends_with_a_full_batch",
        slot(),
        [queue(*EIGHT, max_delay_ns=5 * MS)],
        Run(0, list(range(8)), "full"),
    ),
    Row(
        "delay_ends_before_the_deadline_is_lost",
        slot(),
        [queue(entry(deadline_ms=6), max_delay_ns=50 * MS, cost=FAST)],
        wait(3),
    ),
    Row(
        "delay_does_not_wait_past_the_deadline",
        slot(),
        [queue(entry(deadline_ms=3), max_delay_ns=50 * MS, cost=FAST)],
        Run(0, [0], "delay"),
    ),
    Row(
        "the_earliest_of_several_delays",
        slot(),
        [queue(max_delay_ns=5 * MS), queue(entry(age_ms=2), max_delay_ns=6 * MS)],
        wait(4),
    ),
    # a busy slot
    Row("full_batch_is_staged_at_once", busy(50), [queue(*EIGHT)], Run(0, list(range(8)), "full")),
    Row("a_partial_batch_waits_for_late_arrivals", busy(50), [queue()], WaitUntil(NOW + 50 * MS - LEAD_NS)),
    Row("staged_within_the_lead", busy(LEAD_NS / MS), [queue()], Run(0, [0], "idle")),
    Row("not_staged_just_before_the_lead", busy(LEAD_NS / MS + 0.001), [queue()], wait(0.001)),
    Row("no_credit_to_stage_with", busy(0.1, credits=0), [queue()], IDLE),
    Row("delay_does_not_apply_to_staging", busy(0.1), [queue(max_delay_ns=5 * MS)], Run(0, [0], "idle")),
    Row(
        "a_full_batch_goes_before_a_partial_one_that_waits",
        busy(50),
        [queue(used_ns=0.0), queue(*EIGHT, used_ns=1.0)],
        Run(1, list(range(8)), "full"),
    ),
    # two instances
    Row(
        "elsewhere_finishes_sooner",
        busy(10),
        [queue(*EIGHT, cost=SLOW, elsewhere=(there(5, FAST),))],
        IDLE,
    ),
    Row(
        "elsewhere_is_faster_but_free_too_late",
        busy(10),
        [queue(*EIGHT, cost=SLOW, elsewhere=(there(60, FAST),))],
        Run(0, list(range(8)), "full"),
    ),
    Row(
        "elsewhere_is_free_sooner_but_slower",
        busy(1),
        [queue(*EIGHT, cost=FAST, elsewhere=(there(0, SLOW),))],
        Run(0, list(range(8)), "full"),
    ),
    Row(
        "an_idle_slow_slot_does_not_refuse",
        slot(),
        [queue(cost=SLOW, elsewhere=(there(0, FAST),))],
        Run(0, [0], "idle"),
    ),
    Row(
        "split_between_equals",
        slot(),
        [queue(*FOUR, cost=FAST, elsewhere=(there(0, FAST),))],
        Run(0, [0, 1], "idle"),
    ),
    Row(
        "split_by_speed",
        slot(),
        [queue(*FOUR, entry(), cost=FAST, elsewhere=(there(0, SLOW),))],
        Run(0, [0, 1, 2, 3, 4], "idle"),
    ),
    Row(
        "the_slower_takes_the_smaller_part",
        slot(),
        [queue(*FOUR, entry(), cost=SLOW, elsewhere=(there(0, FAST),))],
        Run(0, [0], "idle"),
    ),
    Row(
        "split_among_three",
        slot(),
        [queue(*FOUR, entry(), entry(), cost=FAST, elsewhere=(there(), there()))],
        Run(0, [0, 1], "idle"),
    ),
    Row(
        "no_split_where_the_fixed_part_dominates",
        slot(),
        [queue(*FOUR, cost=Cost(100 * MS, MS), elsewhere=(there(0, Cost(100 * MS, MS)),))],
        Run(0, [0, 1, 2, 3], "idle"),
    ),
    Row(
        "no_split_with_a_busy_slot",
        slot(),
        [queue(*FOUR, cost=FAST, elsewhere=(there(5, FAST),))],
        Run(0, [0, 1, 2, 3], "idle"),
    ),
    Row(
        "no_split_of_a_full_batch",
        slot(),
        [queue(*EIGHT, cost=FAST, elsewhere=(there(),))],
        Run(0, list(range(8)), "full"),
    ),
    Row(
        "no_split_with_an_unmeasured_slot",
        slot(),
        [queue(*FOUR, cost=FAST, elsewhere=(there(0, UNKNOWN),))],
        Run(0, [0, 1, 2, 3], "idle"),
    ),
    Row("one_request_is_not_split", slot(), [queue(cost=FAST, elsewhere=(there(),))], Run(0, [0], "idle")),
    # suspects
    Row("a_suspect_runs_alone", slot(), [queue(), queue(*FOUR, alone=True)], Run(1, (0,), "suspect")),
    Row("the_slot_drains_for_a_suspect", busy(0, in_flight=1), [queue(), queue(alone=True)], IDLE),
    Row("nothing_runs_beside_a_suspect", slot(credits=1, in_flight=1, alone=True), [queue(*EIGHT)], IDLE),
    Row("no_second_suspect_beside_one", slot(credits=1, in_flight=1, alone=True), [queue(alone=True)], IDLE),
    Row("a_suspect_needs_a_credit", slot(credits=0), [queue(alone=True)], IDLE),
    Row(
        "the_oldest_suspect_first",
        slot(),
        [queue(entry(age_ms=1), alone=True), queue(entry(age_ms=2), alone=True)],
        Run(1, (0,), "suspect"),
    ),
    Row(
        "a_suspect_goes_before_any_band",
        slot(),
        [queue(band=0), queue(band=9, alone=True)],
        Run(1, (0,), "suspect"),
    ),
    Row(
        "a_wide_suspect_runs_with_one_credit",
        slot(credits=1),
        [queue(width=4, alone=True)],
        Run(0, (0,), "suspect"),
    ),
    Row(
        "no_suspects_left",
        slot(),
        [queue()._replace(alone=True, entries=(), waiting=0), queue()],
        Run(1, [0], "idle"),
    ),
    # width
    Row("too_few_credits_for_a_wide_servable", busy(0.1, credits=1), [queue(width=2)], IDLE),
    Row("enough_credits_for_a_wide_servable", slot(credits=2), [queue(width=2)], Run(0, [0], "idle")),
    Row("wider_than_the_share_runs_alone", slot(credits=1), [queue(width=4)], Run(0, [0], "idle")),
    Row("wider_than_the_share_waits_for_an_empty_slot", slot(credits=1, in_flight=1), [queue(width=4)], IDLE),
    Row(
        "a_narrow_one_runs_beside_where_the_wide_one_cannot",
        slot(credits=1, in_flight=1),
        [queue(width=4), queue(width=1)],
        Run(1, [0], "idle"),
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_decision(row):
    decided = decide(NOW, row.slot, row.queues)
    if isinstance(decided, Run):
        decided = decided._replace(picks=list(decided.picks))
    expected = row.expected
    if isinstance(expected, Run):
        expected = expected._replace(picks=list(expected.picks))
    assert decided == expected
    assert type(decided) is type(expected)


def test_the_table_has_no_name_twice():
    assert len({row.name for row in TABLE}) == len(TABLE) >= 50


def test_the_decision_is_pure():
    tree = ast.parse(inspect.getsource(module))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= {"__future__", "typing", "collections", "gateway"}
    assert not {"asyncio", "time", "socket"} & vars(module).keys()


costs = st.builds(
    Cost,
    st.integers(0, 50 * MS).map(float),
    st.integers(0, 5 * MS).map(float),
    st.integers(0, 5 * MS).map(float),
    st.integers(0, 20 * MS).map(float),
)
entries = st.builds(
    Entry,
    st.integers(1, 12),
    st.integers(0, 600),
    st.one_of(st.just(NEVER), st.integers(NOW - 10 * MS, NOW + 100 * MS)),
    st.integers(NOW - 20 * MS, NOW),
)


@st.composite
def queues(draw):
    waiting = draw(st.lists(entries, min_size=1, max_size=10))
    return QueueView(
        entries=waiting,
        waiting=len(waiting),
        band=draw(st.integers(0, 3)),
        used_ns=float(draw(st.integers(0, 100))),
        max_rows=draw(st.integers(1, 16)),
        max_delay_ns=draw(st.sampled_from([0, 0, MS, 30 * MS])),
        width=draw(st.integers(1, 4)),
        room=draw(st.integers(0, 3)),
        cost=draw(costs),
        elsewhere=draw(
            st.lists(
                st.builds(Elsewhere, st.integers(NOW - MS, NOW + 20 * MS), st.booleans(), costs), max_size=2
            )
        ),
        alone=draw(st.sampled_from([False] * 7 + [True])),
    )


@st.composite
def slots(draw):
    idle = draw(st.booleans())
    return SlotView(
        credits=draw(st.integers(0, 4)),
        in_flight=draw(st.integers(0, 2)) if idle else draw(st.integers(1, 4)),
        idle=idle,
        ready_ns=NOW if idle else NOW + draw(st.integers(1, 30 * MS)),
        max_batch_bytes=draw(st.integers(1, 2000)),
    )


@pytest.mark.slow
@given(slots(), st.lists(queues(), max_size=4))
def test_every_decision_is_sound(slot, queues):
    decided = decide(NOW, slot, queues)
    assert decided == decide(NOW, slot, queues)
    if isinstance(decided, WaitUntil):
        assert decided.at_ns > NOW
    if not isinstance(decided, Run):
        return
    assert slot.credits > 0
    queue = queues[decided.queue]
    picks = list(decided.picks)
    assert picks == sorted(set(picks))
    assert picks
    assert 0 <= picks[0] <= picks[-1] < len(queue.entries)
    picked = [queue.entries[i] for i in picks]
    assert len(picked) == 1 or sum(each.rows for each in picked) <= queue.max_rows
    assert len(picked) == 1 or sum(each.size_bytes for each in picked) <= slot.max_batch_bytes
    if queue.alone:
        assert len(picks) == 1
        assert slot.in_flight == 0
    else:
        assert not any(each.alone for each in queues)
        assert queue.room > 0
        assert slot.credits >= queue.width or slot.in_flight == 0
        free_ns = max(NOW, slot.ready_ns)
        assert all(each.deadline_ns >= free_ns + queue.cost.floor_ns for each in picked)


@pytest.mark.slow
@given(slots(), st.lists(queues(), max_size=4))
def test_an_idle_slot_with_work_that_can_run_is_never_left_idle(slot, queues):
    able = [
        each
        for each in queues
        if not each.alone
        and each.room > 0
        and (slot.credits >= each.width or (slot.in_flight == 0 and slot.credits > 0))
        and any(one.deadline_ns >= NOW + each.cost.floor_ns for one in each.entries)
    ]
    if not slot.idle or not able or any(each.alone for each in queues):
        return
    decided = decide(NOW, slot, queues)
    assert not isinstance(decided, Idle)
    if not any(each.max_delay_ns for each in able):
        assert isinstance(decided, Run)


@pytest.mark.slow
@given(
    rows=st.integers(1, 4),
    size_bytes=st.sampled_from([0, 4, 300]),
    deadlines_ms=st.lists(st.none() | st.integers(1, 40), min_size=1, max_size=12),
    ready_ms=st.sampled_from([0.0, 0.2, 5.0]),
    cost=st.sampled_from([UNKNOWN, FAST, SLOW]),
)
def test_even_queues_are_decided_as_if_each_entry_were_looked_at(
    rows, size_bytes, deadlines_ms, ready_ms, cost
):
    entries = [entry(rows, size_bytes, deadline) for deadline in deadlines_ms]
    entries.sort(key=lambda each: min(each.deadline_ns, NOW + 30_000 * MS))
    looked_at = queue(*entries, cost=cost)
    due_ns = min(entries[0].deadline_ns, NOW + 30_000 * MS)
    where = busy(ready_ms) if ready_ms else slot()
    expected = decide(NOW, where, [looked_at])
    found = decide(NOW, where, [looked_at._replace(even=rows, due_ns=due_ns)])
    if isinstance(expected, Run):
        assert isinstance(found, Run)
        assert (list(found.picks), found.reason) == (list(expected.picks), expected.reason)
    else:
        assert found == expected
