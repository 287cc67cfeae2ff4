from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from gateway.admin.explaining import explanation_of
from gateway.config.validation import validate
from gateway.lifecycle.routes import build_route

TRAFFIC = {
    "split": {"stable": 3, "canary": 1},
    "rules": [{"when": {"metadata": {"x-cohort": "beta"}}, "to": "canary"}],
}


@pytest.fixture
def split(world):
    world.add(
        "m",
        {"1": "ready", "2": "ready"},
        revision=9,
        labels={"stable": "1", "canary": "2"},
        traffic=TRAFFIC,
        batching={"max_batch_size": 8, "max_queue_delay_us": 50, "max_queue_size": 16},
    )
    return world


def change(served, traffic, revision):
    """Give a model another document, whose routing switches when it can."""
    document = msgspec.structs.replace(served.desired.document, traffic=validated(traffic))
    served.desired = replace(served.desired, document=document, revision=revision)
    build_route(served)


def validated(traffic):
    return validate({"traffic": traffic}, model="m", versions=["1", "2"]).traffic


def ways(message):
    return [(way.version, way.share, way.failure.code) for way in message.ways]


def test_weights_give_each_version_its_share_and_state(split):
    message = explanation_of(split.view(), "m", "", {})
    assert (message.by, message.revision) == ("weights", 9)
    assert ways(message) == [("1", 0.75, ""), ("2", 0.25, "")]
    servable = message.ways[0].servable
    assert (servable.batchable, servable.max_batch_size, servable.max_queue_delay_us) == (True, 8, 50)
    assert (servable.queue_depth, servable.max_queue_size) == (0, 16)
    assert not message.HasField("failure")


def test_a_rule_is_named_with_its_conditions(split):
    message = explanation_of(split.view(), "m", "", {"x-cohort": "beta"})
    assert (message.by, message.rule, dict(message.conditions)) == ("rule", 1, {"x-cohort": "beta"})
    assert ways(message) == [("2", 1.0, "")]


@pytest.mark.parametrize(("asked", "by"), [("canary", "label"), ("2", "version")])
def test_what_was_asked_for_by_name_is_found(split, asked, by):
    message = explanation_of(split.view(), "m", asked, {})
    assert (message.by, ways(message)) == (by, [("2", 1.0, "")])


def test_a_sticky_key_is_shown_with_its_value(world):
    traffic = {"split": {"1": 1, "2": 1}, "sticky": {"metadata": "x-user"}}
    world.add("m", {"1": "ready", "2": "ready"}, traffic=traffic)
    message = explanation_of(world.view(), "m", "", {"x-user": "anna"})
    assert (message.by, message.sticky, message.sticky_value) == ("sticky", "x-user", "anna")
    assert len(message.ways) == 1
    without = explanation_of(world.view(), "m", "", {})
    assert (without.by, without.sticky, without.HasField("sticky_value")) == ("weights", "x-user", False)


@pytest.mark.parametrize(
    ("model", "version", "code", "words"),
    [
        ("n", "", "NOT_FOUND", "unknown model 'n'; this gateway serves m"),
        ("m", "7", "NOT_FOUND", "model m has no version or label '7'; there are 1, 2, canary, stable"),
    ],
)
def test_what_does_not_exist_is_an_answer(split, model, version, code, words):
    message = explanation_of(split.view(), model, version, {})
    assert (message.failure.code, message.failure.message) == (code, words)


def test_what_is_loading_is_said(world):
    world.add("m", {"1": "loading"})
    message = explanation_of(world.view(), "m", "", {})
    assert (message.by, message.failure.code) == ("nothing", "UNAVAILABLE")
    assert "it is loading" in message.failure.message


def test_what_is_loaded_on_demand_is_no_failure(world):
    world.add("m", {"1": None}, load={"mode": "on_demand"})
    message = explanation_of(world.view(), "m", "", {})
    assert [(way.version, way.asleep) for way in message.ways] == [("1", True)]
    assert not message.HasField("failure")


def test_a_gateway_that_drains_refuses_what_could_run(split):
    split.draining = True
    message = explanation_of(split.view(), "m", "", {})
    assert (message.failure.code, ways(message)[0][:2]) == ("UNAVAILABLE", ("1", 0.75))
    assert "draining" in message.failure.message


def test_a_full_queue_is_said_in_the_words_of_the_data_plane(split):
    for record in split.served["m"].records.values():
        record.servable.queues.max_size = 0
    message = explanation_of(split.view(), "m", "1", {})
    assert message.failure.code == "RESOURCE_EXHAUSTED"
    assert message.failure.message == "model m: the queue is full (0 requests)"
    assert message.ways[0].HasField("servable")


def test_a_routing_that_waits_is_told_beside_the_one_that_decides(world):
    served = world.add("m", {"1": "ready", "2": "loading"}, revision=9, traffic={"split": {"1": 1}})
    message = explanation_of(world.view(), "m", "", {})
    assert (message.revision, message.applied, list(message.waits)) == (9, 9, [])
    change(served, {"split": {"2": 1}}, revision=12)
    message = explanation_of(world.view(), "m", "", {})
    assert (message.revision, message.applied) == (12, 9)
    assert [reason.partition(":")[0] for reason in message.waits] == ["version 2"]
    assert ways(message) == [("1", 1.0, "")]


def test_a_document_that_is_not_valid_is_told(split):
    split.served["m"].problem = "labels: expected a mapping"
    message = explanation_of(split.view(), "m", "", {})
    assert message.problem == "labels: expected a mapping"
    assert not message.HasField("failure")
