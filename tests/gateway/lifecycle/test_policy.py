"""The life cycle's policy as a table: a snapshot of one model, and what is due."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lifecycle.policy import (
    Drain,
    Fetch,
    Forget,
    InstanceView,
    LoadInstance,
    ModelView,
    StartSlot,
    VersionView,
    WakeAt,
    next_actions,
)
from gateway.lifecycle.record import InstanceState
from gateway.scheduling.decision import NEVER

NOW = 1_000_000_000_000
LATER = NOW + 5_000_000_000
ABSENT, LOADING, READY, FAILED = InstanceState


def at(slot="s", state=READY, up=True, retry_ns=NEVER):
    return InstanceView(slot, state, up, retry_ns)


def version(key, *instances, ready=None, **changes):
    """`key` is the version's number and a letter for its content: 1a, 1b, 2a."""
    instances = () if instances == ((),) else instances or (at(),)
    if ready is None:
        ready = any(each.state is READY for each in instances)
    return VersionView(key, key[:-1], instances, ready, **changes)


def model(*versions, want=()):
    return ModelView({key[:-1]: key for key in want}, versions)


class Row(NamedTuple):
    name: str
    model: ModelView
    expected: list


TABLE = [
    Row("nothing_wanted_nothing_there", model(), []),
    Row("a_wanted_version_without_records", model(want=["1a"]), []),
    Row("all_is_well", model(version("1a"), want=["1a"]), []),
    # loading
    Row(
        "an_absent_instance_is_loaded",
        model(version("1a", at(state=ABSENT)), want=["1a"]),
        [LoadInstance("1a", "s")],
    ),
    Row(
        "a_slot_without_a_worker_is_started",
        model(version("1a", at(state=ABSENT, up=False)), want=["1a"]),
        [StartSlot("s")],
    ),
    Row("a_load_under_way_is_left_alone", model(version("1a", at(state=LOADING)), want=["1a"]), []),
    Row(
        "each_instance_for_itself",
        model(
            version("1a", at("a"), at("b", ABSENT), at("c", ABSENT, up=False), at("d", LOADING)), want=["1a"]
        ),
        [LoadInstance("1a", "b"), StartSlot("c")],
    ),
    Row(
        "two_wanted_versions",
        model(version("1a", at(state=ABSENT)), version("2a", at(state=ABSENT)), want=["1a", "2a"]),
        [LoadInstance("1a", "s"), LoadInstance("2a", "s")],
    ),
    # failures
    Row(
        "a_failed_instance_waits_for_its_retry",
        model(version("1a", at(state=FAILED, retry_ns=LATER)), want=["1a"]),
        [WakeAt(LATER)],
    ),
    Row(
        "a_failed_instance_is_due_again",
        model(version("1a", at(state=FAILED, retry_ns=NOW)), want=["1a"]),
        [LoadInstance("1a", "s")],
    ),
    Row("what_failed_for_good_is_not_tried_again", model(version("1a", at(state=FAILED)), want=["1a"]), []),
    Row(
        "a_failed_instance_whose_worker_is_gone_starts_it",
        model(version("1a", at(state=FAILED, up=False, retry_ns=LATER)), want=["1a"]),
        [StartSlot("s")],
    ),
    Row(
        "a_failure_beside_a_ready_one_is_retried",
        model(version("1a", at("a"), at("b", FAILED, retry_ns=LATER)), want=["1a"]),
        [WakeAt(LATER)],
    ),
    Row(
        "the_earliest_of_several_retries",
        model(
            version("1a", at("a", FAILED, retry_ns=LATER), at("b", FAILED, retry_ns=LATER - 1)), want=["1a"]
        ),
        [WakeAt(LATER - 1)],
    ),
    # quarantine
    Row(
        "a_quarantined_version_is_left_alone",
        model(version("1a", at(state=ABSENT), blocked_until_ns=LATER), want=["1a"]),
        [WakeAt(LATER)],
    ),
    Row(
        "a_quarantine_that_is_over",
        model(version("1a", at(state=ABSENT), blocked_until_ns=NOW), want=["1a"]),
        [LoadInstance("1a", "s")],
    ),
    # replacing
    Row(
        "the_old_one_serves_until_the_new_one_is_ready",
        model(version("1a"), version("2a", at(state=LOADING)), want=["2a"]),
        [],
    ),
    Row(
        "the_old_one_drains_when_the_new_one_is_ready",
        model(version("1a"), version("2a"), want=["2a"]),
        [Drain("1a")],
    ),
    Row(
        "a_failed_load_leaves_the_old_one_serving",
        model(version("1a"), version("2a", at(state=FAILED)), want=["2a"]),
        [],
    ),
    Row(
        "the_old_one_is_kept_on_its_feet_meanwhile",
        model(version("1a", at("a"), at("b", ABSENT)), version("2a", at(state=FAILED)), want=["2a"]),
        [LoadInstance("1a", "b")],
    ),
    Row(
        "all_wanted_versions_must_be_ready_first",
        model(version("1a"), version("2a"), version("3a", at(state=LOADING)), want=["2a", "3a"]),
        [],
    ),
    Row(
        "another_content_of_the_same_version_replaces_it_alone",
        model(version("1a"), version("1b"), version("2a", at(state=LOADING)), want=["1b", "2a"]),
        [Drain("1a")],
    ),
    Row(
        "an_old_one_that_never_was_ready_is_forgotten",
        model(version("1a", at(state=FAILED)), version("2a", at(state=LOADING)), want=["2a"]),
        [Forget("1a")],
    ),
    Row(
        "an_old_one_that_still_loads_is_waited_for",
        model(version("1a", at(state=LOADING)), version("2a"), want=["2a"]),
        [],
    ),
    Row(
        "an_old_one_with_one_instance_loading_is_waited_for",
        model(version("1a", at("a", FAILED), at("b", LOADING)), version("2a"), want=["2a"]),
        [],
    ),
    # going
    Row("a_removed_model_drains", model(version("1a"), version("2a")), [Drain("1a"), Drain("2a")]),
    Row(
        "a_removed_model_that_never_loaded_is_forgotten",
        model(version("1a", at(state=ABSENT))),
        [Forget("1a")],
    ),
    Row("a_removed_model_that_loads_is_waited_for", model(version("1a", at(state=LOADING))), []),
    Row(
        "draining_waits_for_requests",
        model(version("1a", draining=True, busy=True, drain_until_ns=LATER)),
        [WakeAt(NOW + 20_000_000)],
    ),
    Row(
        "draining_looks_again_at_its_limit",
        model(version("1a", draining=True, busy=True, drain_until_ns=NOW + 5)),
        [WakeAt(NOW + 5)],
    ),
    Row("drained", model(version("1a", draining=True, busy=False, drain_until_ns=LATER)), [Forget("1a")]),
    Row(
        "drained_long_enough",
        model(version("1a", draining=True, busy=True, drain_until_ns=NOW)),
        [Forget("1a")],
    ),
    Row(
        "a_draining_version_with_a_load_under_way_is_waited_for",
        model(version("1a", at("a"), at("b", LOADING), draining=True)),
        [],
    ),
    Row(
        "a_draining_version_gets_no_loads",
        model(version("1a", at("a"), at("b", ABSENT), draining=True, busy=True, drain_until_ns=NOW + 5)),
        [WakeAt(NOW + 5)],
    ),
    # fetching
    Row(
        "files_are_fetched_first",
        model(version("1a", (), ready=False, fetch=ABSENT), want=["1a"]),
        [Fetch("1a")],
    ),
    Row("a_fetch_is_waited_for", model(version("1a", (), ready=False, fetch=LOADING), want=["1a"]), []),
    Row(
        "a_failed_fetch_is_tried_again_later",
        model(version("1a", (), ready=False, fetch=FAILED, fetch_retry_ns=LATER), want=["1a"]),
        [WakeAt(LATER)],
    ),
    Row(
        "a_failed_fetch_is_tried_again",
        model(version("1a", (), ready=False, fetch=FAILED, fetch_retry_ns=NOW), want=["1a"]),
        [Fetch("1a")],
    ),
    Row(
        "a_version_that_is_fetched_and_not_wanted_any_more_is_waited_for",
        model(version("1a", (), ready=False, fetch=LOADING), version("2a"), want=["2a"]),
        [],
    ),
    # making room
    Row(
        "one_that_makes_room_drains_without_a_successor",
        model(version("1a", leaving=True), want=["1a"]),
        [Drain("1a")],
    ),
    Row(
        "one_that_makes_room_before_it_was_ready_is_forgotten",
        model(version("1a", at(state=ABSENT), leaving=True), want=["1a"]),
        [Forget("1a")],
    ),
    Row(
        "one_that_makes_room_and_loads_is_waited_for",
        model(version("1a", at(state=LOADING), leaving=True), want=["1a"]),
        [],
    ),
    Row(
        "one_that_makes_room_and_drained_is_forgotten",
        model(version("1a", leaving=True, draining=True, drain_until_ns=LATER), want=["1a"]),
        [Forget("1a")],
    ),
    Row(
        "actions_come_with_the_next_wake",
        model(version("1a", at("a", FAILED, retry_ns=LATER), at("b", ABSENT)), want=["1a"]),
        [LoadInstance("1a", "b"), WakeAt(LATER)],
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_what_is_due(row):
    assert next_actions(NOW, row.model) == row.expected


def test_the_table_has_no_name_twice():
    assert len({row.name for row in TABLE}) == len(TABLE) >= 20


instances = st.builds(
    InstanceView,
    st.sampled_from("abc"),
    st.sampled_from(list(InstanceState)),
    st.booleans(),
    st.sampled_from([NEVER, NOW - 1, LATER]),
)


@st.composite
def models(draw):
    keys = draw(st.lists(st.sampled_from(["1a", "1b", "2a", "3a"]), unique=True, max_size=4))
    views = [
        VersionView(
            key,
            key[:-1],
            draw(st.lists(instances, max_size=3, unique_by=lambda each: each.slot)),
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.sampled_from([NEVER, NOW - 1, LATER])),
            draw(st.sampled_from([0, LATER])),
            draw(st.sampled_from(list(InstanceState))),
            draw(st.sampled_from([NEVER, NOW - 1, LATER])),
            draw(st.booleans()),
        )
        for key in keys
    ]
    wanted = draw(st.lists(st.sampled_from(["1b", "2a", "4a"]), unique=True, max_size=3))
    return ModelView({key[:-1]: key for key in wanted}, views)


@given(models())
@pytest.mark.slow
def test_no_snapshot_leads_astray(model):
    actions = next_actions(NOW, model)
    assert actions == next_actions(NOW, model)
    views = {view.key: view for view in model.versions}
    wanted = set(model.wanted.values())
    for action in actions:
        match action:
            case LoadInstance(key, slot):
                (instance,) = [each for each in views[key].instances if each.slot == slot]
                assert instance.slot_up
                assert instance.state in (ABSENT, FAILED)
                assert not views[key].draining
                assert views[key].fetch is READY
                assert views[key].blocked_until_ns <= NOW
            case Fetch(key):
                assert views[key].fetch in (ABSENT, FAILED)
                assert not views[key].draining
            case Drain(key):
                assert key not in wanted or views[key].leaving
                assert views[key].ready
                assert not views[key].draining
            case Forget(key):
                unwanted = key not in wanted or views[key].leaving
                assert views[key].draining or (unwanted and not views[key].ready)
                assert all(each.state is not LOADING for each in views[key].instances)
            case WakeAt(at_ns):
                assert NOW < at_ns < NEVER
    assert sum(isinstance(action, WakeAt) for action in actions) <= 1
