"""The reconciler over fake workers: loading on demand, room, changes, losses."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from rig import MIB, ON_DEMAND, SECOND_NS, Rig, model, slot, stored

from gateway.errors import Exhausted, Expired, InvalidRequest, NotFound, NotReady
from gateway.workerpool.link import RequestRefused

MINUTE_NS = 60 * SECOND_NS


def on_demand(name, folder=None, **more):
    load = {"load": {"mode": "on_demand", **more.pop("load", {})}}
    return model(name, folder, **{**load, **more})


# Always.


async def test_what_is_wanted_is_loaded_and_answers():
    async with Rig() as rig:
        rig.want(model("a"))
        await rig.settle()
        assert rig.states("a") == {"1": "READY"}
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"


async def test_a_new_version_takes_over_and_the_old_one_goes():
    async with Rig() as rig:
        rig.want(model("a"))
        await rig.settle()
        rig.want(model("a", versions=("2",), revision=2))
        await rig.settle()
        assert rig.states("a") == {"2": "READY"}
        assert rig.link.log == [("load", "a", "1"), ("load", "a", "2"), ("unload", "a", "1")]


async def test_a_model_that_is_deleted_while_it_loads_is_unloaded():
    async with Rig() as rig:
        gate = rig.link.gates["a"] = asyncio.Event()
        rig.want(model("a"))
        await rig.settle()
        rig.want(without=("a",))
        await rig.settle()
        gate.set()
        await rig.settle()
        assert rig.link.residents() == set()
        assert rig.catalog.models() == []


# On demand.


async def test_a_declared_model_is_not_loaded_before_somebody_asks():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        assert (rig.states("a"), rig.link.log) == ({"1": "DECLARED"}, [])
        calls = [rig.call("a") for _ in range(5)]
        assert rig.parked == 5
        await rig.settle()
        assert [rig.answer(call) for call in calls] == ["1"] * 5
        assert (rig.states("a"), rig.parked) == ({"1": "READY"}, 0)
        assert rig.link.log == [("load", "a", "1")]


async def test_only_the_version_that_is_asked_for_is_loaded():
    async with Rig() as rig:
        rig.want(
            on_demand("a", versions=("1", "2", "3"), version_policy={"all": True}, labels={"stable": "2"})
        )
        await rig.settle()
        named, labelled = rig.call("a", "1"), rig.call("a", "stable")
        await rig.settle()
        assert (rig.answer(named), rig.answer(labelled)) == ("1", "2")
        assert rig.states("a") == {"1": "READY", "2": "READY", "3": "DECLARED"}
        latest = rig.call("a")
        await rig.settle()
        assert rig.answer(latest) == "3"


async def test_rules_and_splits_reach_versions_that_are_asleep():
    async with Rig() as rig:
        traffic = {
            "rules": [{"when": {"metadata": {"x-cohort": "beta"}}, "to": "canary"}],
            "split": {"stable": 100, "canary": 0},
        }
        labels = {"stable": "1", "canary": "2"}
        rig.want(
            on_demand("a", versions=("1", "2"), version_policy={"all": True}, labels=labels, traffic=traffic)
        )
        await rig.settle()
        split, ruled = rig.call("a"), rig.call("a", metadata={"x-cohort": "beta"})
        await rig.settle()
        assert (rig.answer(split), rig.answer(ruled)) == ("1", "2")


async def test_an_unknown_version_of_a_sleeping_model_is_not_found_at_once():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a", "7")
        assert isinstance(rig.answer(call), NotFound)
        assert "1" in str(rig.answer(call))
        await rig.settle()
        assert rig.link.log == []


async def test_a_load_that_fails_tells_those_who_wait_why_and_is_tried_again():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.link.failures["a"] = [RequestRefused("the file is damaged", retryable=True)]
        calls = [rig.call("a") for _ in range(3)]
        await rig.settle()
        for call in calls:
            assert isinstance(rig.answer(call), NotReady)
            assert "the file is damaged" in str(rig.answer(call))
        assert rig.states("a") == {"1": "UNAVAILABLE"}
        late = rig.call("a")  # while it is known to fail nobody is kept waiting
        assert "the file is damaged" in str(rig.answer(late))
        await rig.advance(2 * SECOND_NS)
        assert rig.states("a") == {"1": "READY"}
        after = rig.call("a")
        await rig.settle()
        assert rig.answer(after) == "1"


async def test_a_load_that_can_never_go_well_is_not_tried_again_before_the_document_changes():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.link.failures["a"] = [RequestRefused("no such operator", retryable=False)]
        call = rig.call("a")
        await rig.advance(10 * MINUTE_NS)
        assert "no such operator" in str(rig.answer(call))
        assert rig.states("a") == {"1": "UNAVAILABLE"}
        rig.want(on_demand("a", batching={"batchable": False}, revision=2))  # another load
        await rig.settle()
        assert rig.states("a") == {"1": "READY"}


async def test_what_nobody_asks_for_is_unloaded_and_loaded_again():
    async with Rig() as rig:
        rig.want(on_demand("a", load={"idle_unload_s": 60}))
        await rig.settle()
        rig.call("a")
        await rig.advance(40 * SECOND_NS)
        rig.call("a")
        await rig.advance(40 * SECOND_NS)
        assert rig.states("a") == {"1": "READY"}
        await rig.advance(21 * SECOND_NS)
        assert (rig.states("a"), rig.link.residents()) == ({"1": "DECLARED"}, set())
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"


async def test_what_is_busy_is_not_idle():
    async with Rig() as rig:
        rig.want(on_demand("a", load={"idle_unload_s": 1}, limits={"run_timeout_ms": 600_000}))
        await rig.settle()
        call = rig.call("a")
        await rig.advance(SECOND_NS // 2, answering=False)
        await rig.advance(5 * SECOND_NS, answering=False)
        assert rig.states("a") == {"1": "READY"}
        await rig.settle()
        assert rig.answer(call) == "1"
        await rig.advance(2 * SECOND_NS)
        assert rig.states("a") == {"1": "DECLARED"}


async def test_without_idle_unload_it_stays():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.call("a")
        await rig.advance(60 * MINUTE_NS)
        assert rig.states("a") == {"1": "READY"}


async def test_a_request_in_the_moment_of_unloading_is_answered_by_the_next_load():
    async with Rig() as rig:
        rig.want(on_demand("a", load={"idle_unload_s": 1}))
        await rig.settle()
        rig.call("a")
        await rig.settle()
        rig.clock.now += 2 * SECOND_NS
        while rig.states("a") == {"1": "READY"}:
            await rig.step()
        call = rig.call("a")  # it drains, or is being unloaded
        await rig.settle()
        assert rig.answer(call) == "1"
        assert [what for what, _, _ in rig.link.log] == ["load", "unload", "load"]


# Those who wait.


async def test_who_waits_is_cancelled_and_never_answered():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        gone, stays = rig.call("a"), rig.call("a")
        rig.dataplane.on_cancels([gone])
        assert rig.parked == 1
        rig.worker_up()
        await rig.settle()
        assert (rig.answer(gone), rig.answer(stays)) == (None, "1")


async def test_who_waits_expires_at_its_deadline_and_not_later():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a", deadline_ns=rig.clock.now + SECOND_NS)
        await rig.advance(SECOND_NS - 1)
        assert rig.answer(call) is None
        await rig.advance(1)
        assert isinstance(rig.answer(call), Expired)
        assert "while the model was loaded" in str(rig.answer(call))


@pytest.mark.parametrize(
    ("document", "request_"),
    [({"deadline": {"default_ms": 1000}}, {}), ({}, {"parameters": {"timeout": 1_000_000}})],
    ids=["the model's own", "the parameter"],
)
async def test_every_kind_of_deadline_counts_while_one_waits(document, request_):
    async with Rig(up=False) as rig:
        rig.want(on_demand("a", **document))
        await rig.settle()
        call = rig.call("a", **request_)
        await rig.advance(2 * SECOND_NS)
        assert isinstance(rig.answer(call), Expired)


async def test_a_request_that_is_too_large_or_wrong_does_not_wait():
    async with Rig() as rig:
        rig.want(on_demand("a", limits={"max_request_bytes": 1000}))
        await rig.settle()
        large = rig.call("a", size_bytes=1001)
        wrong = rig.call("a", parameters={"timeout": "soon"})
        assert isinstance(rig.answer(large), Exhausted)
        assert isinstance(rig.answer(wrong), InvalidRequest)
        assert rig.link.log == []


async def test_a_request_that_turns_out_to_be_wrong_fails_alone():
    async with Rig() as rig:
        rig.want(on_demand("a", batching={"max_batch_size": 4}))
        await rig.settle()
        good, wrong, last = rig.call("a"), rig.call("a", rows=5), rig.call("a")
        await rig.settle()
        assert (rig.answer(good), rig.answer(last)) == ("1", "1")
        assert isinstance(rig.answer(wrong), InvalidRequest)


async def test_no_more_wait_than_the_queue_would_hold():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a", batching={"max_batch_size": 2, "max_queue_size": 3}))
        await rig.settle()
        calls = [rig.call("a") for _ in range(5)]
        assert [isinstance(rig.answer(call), Exhausted) for call in calls] == [False] * 3 + [True] * 2
        rig.worker_up()
        await rig.settle()
        assert [rig.answer(call) for call in calls[:3]] == ["1"] * 3


async def test_a_drain_refuses_new_requests_and_serves_those_that_wait():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        waits = rig.call("a")
        rig.admission.draining = True
        late = rig.call("a")
        assert "draining" in str(rig.answer(late))
        rig.worker_up()
        await rig.settle()
        assert rig.answer(waits) == "1"


async def test_who_still_waits_at_the_end_of_a_drain_is_told():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a")
        assert rig.dataplane.unsettled == 1
        rig.dataplane.fail_all(NotReady("the end"))
        assert str(rig.answer(call)) == "the end"
        assert (rig.dataplane.unsettled, rig.admission.held_bytes) == (0, 0)


async def test_the_worker_comes_up_only_for_who_asks():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        assert rig.pool.started == set()
        rig.call("a")
        await rig.settle()
        assert rig.pool.started == {"cpu"}


# Documents change.


async def test_a_document_that_changes_while_asleep_loads_nothing():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.want(on_demand("a", versions=("2",), revision=2))
        await rig.settle()
        assert (rig.states("a"), rig.link.log) == ({"2": "DECLARED"}, [])


async def test_a_version_that_goes_while_somebody_waits_for_it_tells_them():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        named, latest = rig.call("a", "1"), rig.call("a")
        rig.want(on_demand("a", versions=("2",), revision=2))
        rig.worker_up()
        await rig.settle()
        assert isinstance(rig.answer(named), NotFound)
        assert rig.answer(latest) == "2"  # it named none


async def test_a_model_that_goes_while_somebody_waits_for_it_tells_them():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a")
        rig.want(without=("a",))
        await rig.settle()
        assert isinstance(rig.answer(call), NotFound)


async def test_who_waits_goes_on_waiting_when_the_model_is_to_be_loaded_always():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a")
        rig.want(model("a", revision=2))
        await rig.settle()
        assert rig.answer(call) is None
        assert isinstance(rig.answer(rig.call("a")), NotReady)  # who comes now does not wait
        rig.worker_up()
        await rig.settle()
        assert rig.answer(call) == "1"


async def test_who_waits_for_what_is_then_loaded_always_and_fails_is_told_why():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.link.gates["a"] = asyncio.Event()
        call = rig.call("a")
        await rig.settle()
        rig.want(model("a", revision=2))
        rig.link.failures["a"] = [RequestRefused("no such file", retryable=False)]
        rig.link.gates["a"].set()
        await rig.settle()
        assert "no such file" in str(rig.answer(call))


# Slots that are not known yet.


async def test_what_cannot_be_placed_waits_until_all_slots_are_known(caplog):
    async with Rig() as rig:
        there = rig.pool.slots.pop("cpu")
        rig.reconciler.await_slots()
        rig.want(model("a"), on_demand("b"), on_demand("c"))
        await rig.settle()
        call = rig.call("b")
        await rig.settle()
        assert rig.states("a") == rig.states("b") == {"1": "LOADING"}
        assert "waits for a slot" in rig.reason("a")
        assert not rig.catalog.ready()[0]
        rig.pool.slots["cpu"] = there
        rig.reconciler.slots_changed()
        await rig.settle()
        assert (rig.states("a"), rig.answer(call)) == ({"1": "READY"}, "1")
        rig.reconciler.slots_known()
        await rig.settle()
        assert rig.states("a") == {"1": "READY"}
        assert "cannot be placed" not in caplog.text


async def test_what_cannot_be_placed_when_all_slots_are_known_has_failed(caplog):
    async with Rig() as rig:
        rig.pool.slots.clear()
        rig.reconciler.await_slots()
        rig.want(model("a"), on_demand("b"))
        await rig.settle()
        call = rig.call("b")
        await rig.settle()
        assert caplog.text == ""
        rig.reconciler.slots_known()
        await rig.settle()
        assert rig.states("a") == {"1": "UNAVAILABLE"}
        assert isinstance(rig.answer(call), NotReady)
        assert caplog.text.count("cannot be placed") == 2
        assert rig.catalog.ready() == (True, [])


async def test_nothing_is_fetched_before_it_is_known_where_it_runs(tmp_path):
    async with Rig() as rig:
        there = rig.pool.slots.pop("cpu")
        rig.reconciler.await_slots()
        (wanted,) = stored_versions(tmp_path, "a")
        rig.want(wanted)
        await rig.step()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("fetch")]
        rig.pool.slots["cpu"] = there
        rig.reconciler.slots_known()
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"


async def test_a_model_that_goes_while_it_waits_for_a_slot_is_gone(tmp_path):
    async with Rig() as rig:
        rig.pool.slots.clear()
        rig.reconciler.await_slots()
        rig.want(model("a"), stored("b", "file:///nowhere/b.onnx"))
        await rig.settle()
        rig.want(without=("a", "b"))
        await rig.settle()
        assert rig.catalog.models() == []


# Documents change further.


async def test_a_document_that_changes_while_loading_loads_what_it_says_now():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        gate = rig.link.gates["a"] = asyncio.Event()
        call = rig.call("a")
        await rig.settle()
        rig.want(on_demand("a", batching={"batchable": False}, revision=2))
        await rig.settle()
        assert rig.answer(call) is None
        gate.set()
        await rig.settle()
        assert rig.answer(call) == "1"
        assert len(rig.link.loaded) == 1
        assert rig.states("a") == {"1": "READY"}


async def test_policy_applies_at_once_and_reloads_nothing():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.call("a")
        await rig.settle()
        rig.want(on_demand("a", batching={"max_batch_size": 2}, revision=7))
        await rig.settle()
        wrong = rig.call("a", rows=3)
        assert "max_batch_size 2" in str(rig.answer(wrong))
        assert rig.catalog.servable("a").revision == 7
        assert rig.link.log == [("load", "a", "1")]


async def test_the_mode_changes_always_to_on_demand_to_never_and_back():
    async with Rig() as rig:
        rig.want(model("a"))
        await rig.settle()
        rig.want(on_demand("a", revision=2))
        await rig.settle()
        assert (rig.link.residents(), rig.states("a")) == (set(), {"1": "DECLARED"})
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"
        rig.want(model("a", load={"mode": "never"}, revision=3))
        await rig.settle()
        assert rig.link.residents() == set()
        refused = rig.call("a")
        assert isinstance(rig.answer(refused), NotReady)
        assert rig.catalog.versions("a")[0].reason == "its document says load.mode: never"
        rig.want(model("a", revision=4))
        await rig.settle()
        call = rig.call("a")
        await rig.settle()
        assert (rig.answer(call), rig.states("a")) == ("1", {"1": "READY"})


async def test_who_waits_is_told_when_the_model_is_never_to_be_loaded():
    async with Rig(up=False) as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a")
        rig.want(model("a", load={"mode": "never"}, revision=2))
        await rig.settle()
        assert isinstance(rig.answer(call), NotReady)


async def test_an_invalid_document_is_shown_and_the_last_good_one_serves():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.want(problems={"a": "batching: is wrong", "b": "all of it is wrong"})
        await rig.settle()
        call, unknown = rig.call("a"), rig.call("b")
        await rig.settle()
        assert rig.answer(call) == "1"
        assert "all of it is wrong" in str(rig.answer(unknown))
        assert any("batching: is wrong" in status.reason for status in rig.catalog.versions("a"))


# Room.


@pytest.fixture
def make(tmp_path):
    def make(name, mib=10, **more):
        return on_demand(name, tmp_path, size_bytes=mib * MIB, **more)

    return make


async def ask(rig, *names):
    """Ask for models one after the other, each well after the one before."""
    for name in names:
        await rig.advance(SECOND_NS)
        call = rig.call(name)
        await rig.advance(SECOND_NS)
        assert rig.answer(call) == "1"


async def test_the_least_recently_used_model_makes_room(make):
    async with Rig(slot(memory_bytes=25 * MIB)) as rig:
        rig.want(*[make(name) for name in "abc"])
        await ask(rig, "a", "b", "a", "c")
        assert rig.link.residents() == {"a", "c"}
        await ask(rig, "b")
        assert rig.link.residents() == {"b", "c"}


async def test_models_that_are_asked_for_at_once_stay_within_the_budget(make):
    async with Rig(slot(memory_bytes=25 * MIB)) as rig:
        rig.want(*[make(name) for name in "abcdef"])
        await rig.settle()
        calls = [rig.call(name) for name in "abcdef"]
        most = 0
        for _ in range(200):
            await rig.step()
            most = max(most, len(rig.link.residents()))
            rig.run()
            rig.clock.now += 10_000_000
        assert [rig.answer(call) for call in calls] == ["1"] * 6
        assert most == 2


async def test_models_of_one_source_are_told_apart(make, tmp_path):
    """One goes: not all that were loaded from the same file."""
    async with Rig(slot(memory_bytes=35 * MIB)) as rig:
        same = stored_versions(tmp_path, "abcd")
        rig.want(*same)
        await ask(rig, "a", "b", "c", "d")
        assert rig.link.residents() == {"b", "c", "d"}


def stored_versions(tmp_path, names):
    file = tmp_path / "shared.onnx"
    file.touch()
    with file.open("r+b") as opened:
        opened.truncate(10 * MIB)
    return [stored(name, file.as_uri(), **ON_DEMAND) for name in names]


async def test_what_is_always_loaded_never_makes_room(make, tmp_path):
    async with Rig(slot(memory_bytes=25 * MIB)) as rig:
        rig.want(model("fixed", tmp_path, size_bytes=10 * MIB), make("a"), make("b"))
        await ask(rig, "a", "b", "a")
        assert rig.link.residents() == {"fixed", "a"}


async def test_what_is_busy_makes_no_room_before_it_is_done(make):
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("a"), make("b"))
        await rig.settle()
        first = rig.call("a")
        await rig.settle(answering=False)
        second = rig.call("b")
        await rig.advance(SECOND_NS, answering=False)
        assert (rig.answer(first), rig.answer(second)) == (None, None)
        assert rig.link.residents() == {"a"}
        assert "memory" in rig.reason("b")
        await rig.advance(SECOND_NS)
        assert (rig.answer(first), rig.answer(second)) == ("1", "1")
        assert rig.link.residents() == {"b"}


async def test_a_model_that_never_fits_says_why(make, tmp_path):
    async with Rig(slot(memory_bytes=25 * MIB)) as rig:
        rig.want(model("fixed", tmp_path, size_bytes=10 * MIB), make("large", 20), make("small"))
        await rig.settle()
        small, large = rig.call("small"), rig.call("large")
        await rig.settle()
        assert rig.answer(small) == "1"
        assert "it needs 20.0 MiB; the slot's budget is 25.0 MiB" in str(rig.answer(large))
        assert rig.states("large") == {"1": "UNAVAILABLE"}
        assert rig.link.residents() == {"fixed", "small"}  # nobody goes for nothing


async def test_a_model_that_did_not_fit_is_loaded_when_the_budgets_holder_goes(make, tmp_path):
    async with Rig(slot(memory_bytes=25 * MIB)) as rig:
        rig.want(model("fixed", tmp_path, size_bytes=10 * MIB), make("large", 20))
        await rig.settle()
        assert isinstance(rig.answer(rig.call("large")), (NotReady, type(None)))
        await rig.settle()
        rig.want(without=("fixed",))
        await rig.advance(2 * MINUTE_NS)
        assert rig.states("large") == {"1": "READY"}


async def test_room_that_is_about_to_be_free_is_waited_for(make, tmp_path):
    """What was always loaded and drains now is no reason to refuse."""
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(model("old", tmp_path, size_bytes=10 * MIB), make("new"))
        await rig.settle()
        runs = rig.call("old")
        await rig.settle(answering=False)
        rig.want(without=("old",))
        call = rig.call("new")
        await rig.settle(answering=False)
        assert rig.answer(call) is None
        await rig.advance(SECOND_NS)
        assert (rig.answer(runs), rig.answer(call)) == ("1", "1")


async def test_what_a_worker_says_that_a_model_takes_counts(make):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.want(make("a"), make("b"))
        await rig.settle()
        rig.link.memory_bytes["a"] = 95 * MIB
        await ask(rig, "a", "b")
        assert rig.link.residents() == {"b"}


async def test_after_a_load_that_took_more_than_was_thought_others_make_room(make):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.want(*[make(name) for name in "abc"])
        await ask(rig, "a", "b")
        rig.link.memory_bytes["c"] = 85 * MIB
        await ask(rig, "c")
        assert rig.link.residents() == {"b", "c"}  # the least recently used one went, and nobody else


async def test_a_large_load_waits_for_busy_ones_before_they_make_room(make):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.want(*[make(name) for name in "ab"])
        await ask(rig, "a")
        running = rig.call("a")
        await rig.advance(10_000_000, answering=False)
        rig.link.memory_bytes["b"] = 95 * MIB
        call = rig.call("b")
        await rig.advance(SECOND_NS // 2, answering=False)
        assert rig.link.residents() == {"a", "b"}
        await rig.advance(SECOND_NS)
        assert (rig.answer(running), rig.answer(call)) == ("1", "1")
        assert rig.link.residents() == {"b"}


async def test_a_slot_that_what_is_always_loaded_overfills_is_reported_once(tmp_path, caplog):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.link.memory_bytes["a"] = 120 * MIB
        rig.want(model("a", tmp_path, size_bytes=MIB))
        await rig.advance(10 * SECOND_NS)
        assert caplog.text.count("slot cpu is over its memory budget since model a was loaded") == 1
        assert rig.states("a") == {"1": "READY"}


async def test_what_was_loaded_before_makes_room_before_it_is_loaded_again(make):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.want(*[make(name) for name in "ab"])
        rig.link.memory_bytes.update(a=60 * MIB, b=60 * MIB)
        await ask(rig, "a", "b", "a", "b")
        rig.call("a")
        most = 0
        for _ in range(200):
            await rig.step()
            most = max(most, len(rig.link.residents()))
            rig.run()
            rig.clock.now += 10_000_000
        assert (most, rig.link.residents()) == (1, {"a"})


async def test_a_size_that_was_measured_long_ago_keeps_nobody_out_for_ever(make):
    async with Rig(slot(memory_bytes=100 * MIB)) as rig:
        rig.want(make("a", load={"idle_unload_s": 1}))
        rig.link.memory_bytes["a"] = 150 * MIB
        await ask(rig, "a")
        await rig.advance(5 * SECOND_NS)
        refused = rig.call("a")
        await rig.settle()
        assert "it needs 150.0 MiB" in str(rig.answer(refused))
        rig.link.memory_bytes["a"] = 20 * MIB
        await rig.advance(11 * MINUTE_NS)
        again = rig.call("a")
        await rig.advance(2 * MINUTE_NS)
        assert rig.answer(again) == "1"


async def test_a_slot_that_fetches_for_itself_is_not_overfilled_twice(tmp_path):
    """Its files are not seen here: the first load tells what they take."""
    there = dataclasses.replace(slot("n/cpu", memory_bytes=100 * MIB), node="n", fetches=True)
    there = dataclasses.replace(there, runtimes=("loopback",))
    async with Rig(there) as rig:
        rig.want(*[stored(name, f"s3://models/{name}.onnx", **ON_DEMAND) for name in "ab"])
        rig.link.memory_bytes.update(a=60 * MIB, b=60 * MIB)
        await ask(rig, "a", "b")
        assert rig.link.residents() == {"b"}
        rig.call("a")
        most = 0
        for _ in range(200):
            await rig.step()
            most = max(most, len(rig.link.residents()))
            rig.run()
            rig.clock.now += 10_000_000
        assert (most, rig.link.residents()) == (1, {"a"})


async def test_two_models_in_the_room_of_one_take_turns(make):
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("a"), make("b"))
        await rig.settle()
        calls = []
        for _ in range(20):
            calls += [rig.call("a"), rig.call("b")]
            await rig.advance(20_000_000)
            assert len(rig.link.residents()) <= 1
        await rig.advance(5 * SECOND_NS)
        assert [rig.answer(call) for call in calls] == ["1"] * len(calls)


async def test_a_model_that_is_never_idle_gives_way_to_one_that_waits(make):
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("hot"), make("cold"))
        await rig.settle()
        hot = [rig.call("hot")]
        await rig.settle(answering=False)
        cold = rig.call("cold")
        for _ in range(300):
            hot.append(rig.call("hot"))  # there is always one that is not answered
            await rig.settle(answering=False)
            rig.clock.now += 10_000_000
            rig.run(1)
            assert len(rig.link.residents()) <= 1
        assert rig.answer(cold) == "1"
        await rig.advance(5 * SECOND_NS)
        assert {rig.answer(call) for call in hot} == {"1"}


async def test_a_model_that_is_hot_and_loaded_for_less_than_its_turn_stays(make):
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("hot"), make("cold"))
        await rig.settle()
        rig.call("hot")
        await rig.settle(answering=False)
        rig.call("cold")
        await rig.advance(SECOND_NS - 100_000_000, answering=False)
        assert rig.states("hot") == {"1": "READY"}


async def test_the_room_that_was_made_is_for_who_waited_longest(make):
    """Not for the one that has just gone and is asked for again."""
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("a"), make("b"))
        await ask(rig, "a")
        waits = rig.call("b")
        while rig.states("a") == {"1": "READY"}:
            await rig.step()
        rig.clock.now += 1_000_000
        again = rig.call("a")
        await rig.settle()
        await rig.advance(50_000_000)
        assert (rig.answer(waits), rig.answer(again)) == ("1", None)
        await rig.advance(SECOND_NS)
        assert rig.answer(again) == "1"


async def test_who_waited_for_a_load_is_served_before_it_goes_again(make):
    async with Rig(slot(memory_bytes=15 * MIB)) as rig:
        rig.want(make("a"), make("b"))
        await rig.settle()
        gate = rig.link.gates["a"] = asyncio.Event()
        first = rig.call("a")
        await rig.settle()
        second = rig.call("b")
        await rig.settle()
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)  # it is loaded, and no pass has looked at it
        rig.reconciler._touched.clear()
        rig.reconciler._touch(("b",))
        await rig.step()
        assert rig.states("a") == {"1": "READY"}
        rig.reconciler._touch(("a",))
        await rig.advance(SECOND_NS)
        assert (rig.answer(first), rig.answer(second)) == ("1", "1")


async def test_two_models_that_need_both_slots_do_not_hold_one_each(make):
    both = [{"runtime": "loopback", "device": "cpu", "count": 2, "threads": 1}]
    async with Rig(slot("one", 15 * MIB), slot("two", 15 * MIB)) as rig:
        rig.want(*[make(name, instances=both) for name in "abc"])
        await rig.settle()
        calls = []
        for _ in range(10):
            calls += [rig.call(name) for name in "abc"]
            await rig.advance(30_000_000)
        await rig.advance(10 * SECOND_NS)
        assert {rig.answer(call) for call in calls} == {"1"}


async def test_slots_have_budgets_of_their_own(make):
    async with Rig(slot("one", 15 * MIB), slot("two", 15 * MIB)) as rig:
        rig.want(make("a", instances=[{"runtime": "loopback", "device": "cpu", "count": 2, "threads": 1}]))
        await ask(rig, "a")
        assert [link.residents() for link in rig.links.values()] == [{"a"}, {"a"}]


# Workers are lost.


async def test_a_worker_that_is_lost_while_somebody_waits_is_waited_for():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        rig.link.gates["a"] = asyncio.Event()
        call = rig.call("a")
        await rig.settle()
        rig.worker_down()
        await rig.settle()
        late = rig.call("a")
        rig.worker_up()
        await rig.advance(2 * SECOND_NS)
        assert (rig.answer(call), rig.answer(late)) == ("1", "1")
        assert rig.states("a") == {"1": "READY"}


async def test_a_worker_that_is_lost_loads_what_it_had_again():
    async with Rig() as rig:
        rig.want(on_demand("a"), model("b"))
        await rig.settle()
        rig.call("a")
        await rig.settle()
        rig.worker_down()
        call = rig.call("a")
        await rig.settle()
        rig.worker_up()
        await rig.settle()
        assert rig.answer(call) == "1"
        assert rig.link.residents() == {"a", "b"}


async def test_a_model_that_ends_its_worker_again_and_again_does_not_keep_who_waits_for_ever():
    async with Rig() as rig:
        rig.want(on_demand("a"))
        await rig.settle()
        call = rig.call("a")
        for _ in range(8):
            rig.link.gates["a"] = asyncio.Event()
            await rig.advance(70 * SECOND_NS)
            rig.worker_down()
            rig.worker_up()
            await rig.settle()
        assert isinstance(rig.answer(call), (NotReady, Expired))


# Fetching.


async def test_files_are_fetched_when_somebody_asks(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    async with Rig() as rig:
        rig.want(stored("a", (tmp_path / "m.onnx").as_uri(), **ON_DEMAND))
        await rig.settle()
        assert rig.states("a") == {"1": "DECLARED"}
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"
        (spec,) = rig.link.loaded.values()
        assert spec.path == str(tmp_path / "m.onnx")


async def test_a_file_that_is_not_there_is_said_and_tried_again(tmp_path):
    file = tmp_path / "m.onnx"
    async with Rig() as rig:
        rig.want(stored("a", file.as_uri(), **ON_DEMAND))
        await rig.settle()
        call = rig.call("a")
        await rig.settle()
        assert f"{file}: No such file or directory" in str(rig.answer(call))
        assert rig.states("a") == {"1": "UNAVAILABLE"}
        file.write_bytes(b"x")
        await rig.advance(3 * SECOND_NS)
        call = rig.call("a")
        await rig.settle()
        assert rig.answer(call) == "1"


async def test_a_source_that_names_no_file_harms_no_other_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    async with Rig() as rig:
        rig.want(stored("a", "file:///a%00b"), stored("b", (tmp_path / "m.onnx").as_uri()))
        await rig.settle()
        assert (rig.states("a"), rig.states("b")) == ({"1": "UNAVAILABLE"}, {"1": "READY"})
        assert "null byte" in rig.reason("a")


# What a pass costs.


async def test_one_change_among_thousands_looks_at_one_model():
    async with Rig() as rig:
        rig.want(*[on_demand(f"m{n}") for n in range(2000)])
        await rig.settle()
        rig.considered.clear()
        rig.changes.clear()
        rig.want(on_demand("m7", retry="never", revision=2))
        await rig.settle()
        assert (rig.considered, rig.changes) == (["m7"], [{"m7"}])
        rig.considered.clear()
        call = rig.call("m9")
        await rig.settle()
        assert rig.answer(call) == "1"
        assert set(rig.considered) == {"m9"}
        rig.considered.clear()
        rig.worker_down()
        rig.worker_up()
        await rig.settle()
        assert set(rig.considered) == {"m9"}
