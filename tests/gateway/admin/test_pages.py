from __future__ import annotations

import time

import pytest

from gateway.admin.pages import MAX_PAGE_BYTES, Page
from gateway.admin.view import ConfigurationState, SlotState

S = 1_000_000_000


def page(world, *patterns, limit=0, after=""):
    built = Page(world.view(), world.recent, patterns, limit, after)
    for _ in built.steps(world.clock.ns):
        pass
    return built


def message(world, *patterns, **rest):
    return page(world, *patterns, **rest).message


def test_the_gateway_is_described(world):
    world.clock.ns = 90 * S
    world.in_flight = 3
    world.add("m", {"1": "ready"})
    gateway = message(world).gateway
    assert (gateway.name, gateway.node, gateway.release, gateway.pid) == ("gw", "n1", "1.2.3", 42)
    assert gateway.uptime_seconds == 90
    assert (gateway.frontend, dict(gateway.addresses)) == ("native", {"grpc": "127.0.0.1:8001"})
    assert (gateway.state, gateway.in_flight) == ("serving", 3)
    assert dict(gateway.models_by_state) == {"READY": 1}


@pytest.mark.parametrize(
    ("ready", "draining", "state"),
    [((True, ()), False, "serving"), ((False, ("m is loading",)), False, "starting"),
     ((False, ("draining",)), True, "draining")],
)  # fmt: skip
def test_the_state_is_told_with_its_reasons(world, ready, draining, state):
    world.ready, world.draining = ready, draining
    gateway = message(world).gateway
    assert (gateway.state, tuple(gateway.reasons)) == (state, ready[1])


def test_the_configuration_is_as_its_source_says(world):
    world.configuration = ConfigurationState(
        "etcd http://a:2379", "connection refused", 12.5, True, 9, 7, 13.0, {"m": "bad"}
    )
    configuration = message(world).configuration
    assert configuration.source == "etcd http://a:2379"
    assert (configuration.away, configuration.away_seconds) == ("connection refused", 12.5)
    assert configuration.from_disk
    assert (configuration.desired_revision, configuration.applied_revision) == (9, 7)
    assert dict(configuration.problems) == {"m": "bad"}


def test_what_is_wrong_beside_models_and_configuration_is_told(world):
    assert list(message(world).gateway.notes) == []
    world.notes = ("workers/n2/cpu: its certificate is not of an allowed identity",)
    assert tuple(message(world).gateway.notes) == world.notes
    world.notes = ("x" * 2000,) * 103
    gateway = message(world).gateway
    assert (len(gateway.notes), gateway.notes_left_off) == (100, 3)
    assert gateway.notes[0].endswith("x...")


def test_slots_are_shown_with_their_use(world):
    world.slots = [
        SlotState("cpu:0", "n1", "cpu:0", "up", 2, restarts=1, memory_bytes=9, batches_in_flight=2,
                  busy_ns=4 * S),
        SlotState("cuda:0", "n2", "cuda:0", "down", 2, reason="exited with status 1"),
    ]  # fmt: skip
    world.clock.ns = 5 * S  # four seconds since the first sample
    cpu, cuda = message(world).slots
    assert (cpu.slot, cpu.device, cpu.state, cpu.restarts, cpu.batches_in_flight) == (
        "cpu:0", "cpu:0", "up", 1, 2,
    )  # fmt: skip
    assert cpu.utilisation == pytest.approx(0.5)
    assert (cuda.state, cuda.reason, cuda.node) == ("down", "exited with status 1", "n2")
    assert not cuda.HasField("utilisation")


def test_a_model_is_shown_with_its_versions_and_routing_in_force(world):
    world.add(
        "m",
        {"1": "ready", "2": "ready"},
        revision=5,
        labels={"stable": "1", "canary": "2"},
        traffic={
            "split": {"stable": 95, "canary": 5},
            "sticky": {"metadata": "x-user"},
            "rules": [{"when": {"metadata": {"a": "b"}}, "to": "canary"}],
        },
    )
    (model,) = message(world).models
    assert (model.model, model.revision, model.applied, list(model.waits)) == ("m", 5, 5, [])
    assert dict(model.labels) == {"stable": "1", "canary": "2"}
    assert dict(model.split) == {"1": 95.0, "2": 5.0}
    assert (model.rules, model.sticky, model.load_mode) == (1, "x-user", "always")
    one, two = model.versions
    assert (one.version, one.state, one.reason, one.batchable) == ("1", "READY", "", True)
    assert (one.memory_bytes, one.load_seconds) == (4096, 2.0)
    (instance,) = two.instances
    assert (instance.slot, instance.device, instance.runtime, instance.state, instance.count) == (
        "cpu", "cpu", "onnxruntime", "ready", 2,
    )  # fmt: skip


def test_a_model_says_what_its_routing_waits_for(world):
    world.add("m", {"1": "ready"})
    world.add("m", {"1": "ready", "2": "failed"}, revision=2, labels={"next": "2"})
    (model,) = message(world).models
    assert (model.revision, model.applied) == (2, 1)
    assert list(model.waits) == ["version 2: cpu: no such operator"]
    assert model.versions[1].state == "UNAVAILABLE"
    assert not model.versions[1].HasField("batchable")


def test_a_model_that_is_loaded_on_demand_is_declared(world):
    world.add("m", {"1": None, "2": None}, load={"mode": "on_demand"}, labels={"old": "1"})
    built = message(world)
    (model,) = built.models
    assert [(v.version, v.state) for v in model.versions] == [("1", "DECLARED"), ("2", "DECLARED")]
    assert list(model.waits) == []
    assert dict(built.gateway.models_by_state) == {"DECLARED": 1}


def test_live_figures_are_those_of_the_version(world):
    world.add("m", {"1": "ready"})
    world.clock.ns = 5 * S
    world.run("m", "1", 8)
    (model,) = message(world).models
    figures = model.versions[0].figures
    assert figures.window_seconds == pytest.approx(4)
    assert figures.requests_per_second == pytest.approx(2)
    assert figures.mean_batch_size == 8
    assert 0.001 <= figures.p50_seconds <= 0.0025
    assert (figures.requests_total, dict(figures.outcomes_total)) == (8, {"ok": 8})


def test_counting_a_version_that_is_not_loaded_makes_no_account(world):
    world.add("m", {"1": None}, load={"mode": "on_demand"})
    message(world)
    assert [account.model for account in world.accounts] == [""]


@pytest.mark.parametrize(
    ("patterns", "models", "missing"),
    [
        ([], ["a1", "a2", "b1"], []),
        (["a1"], ["a1"], []),
        (["a*", "b1"], ["a1", "a2", "b1"], []),
        (["?1"], ["a1", "b1"], []),
        (["a1", "c"], ["a1"], ["c"]),
        (["z*"], [], ["z*"]),
        (["A1"], [], ["A1"]),
    ],
)
def test_models_are_chosen_by_name_and_pattern(world, patterns, models, missing):
    for name in ("b1", "a2", "a1"):
        world.add(name, {"1": "ready"})
    built = page(world, *patterns)
    assert [model.model for model in built.message.models] == models
    assert built.missing == missing
    assert built.message.models_matching == len(models)


def test_pages_follow_each_other_without_gap_or_repetition(world):
    for i in range(7):
        world.add(f"m{i}", {"1": None}, load={"mode": "on_demand"})
    found, after, pages = [], "", 0
    while True:
        built = message(world, limit=3, after=after)
        found += [model.model for model in built.models]
        pages += 1
        after = built.next_page
        if not after:
            break
    assert found == [f"m{i}" for i in range(7)]
    assert pages == 3


def test_a_page_ends_before_it_is_too_large(world):
    for i in range(400):
        served = world.add(f"m{i:03}", {str(v): "failed" for v in range(1, 9)})
        for record in served.records.values():
            record.reason = "x" * 5000
    built = message(world, limit=1000)
    assert built.next_page
    assert MAX_PAGE_BYTES * 0.9 < built.ByteSize() < MAX_PAGE_BYTES * 1.1


def test_a_model_with_very_many_versions_is_cut(world):
    world.add("m", {str(v): "failed" for v in range(1, 501)})
    (model,) = message(world).models
    assert (len(model.versions), model.versions_left_off) == (200, 300)


@pytest.mark.slow
def test_no_step_of_a_page_of_ten_thousand_models_is_long(world):
    for i in range(10_000):
        world.add(f"model-{i:05}", {"1": None}, load={"mode": "on_demand"}, labels={"stable": "1"})
    world.fixed_table = world.table
    longest = []
    for _ in range(3):
        built, steps = Page(world.view(), world.recent, ["model-*"], 1000), []
        began = time.perf_counter()
        for _ in built.steps(world.clock.ns):
            steps.append(time.perf_counter() - began)
            began = time.perf_counter()
        longest.append(max(steps))
    assert len(built.message.models) == 1000
    assert built.message.models_matching == 10_000
    assert built.message.ByteSize() < 4 << 20
    assert min(longest) < 0.02  # the least of three: the machine may be busy
