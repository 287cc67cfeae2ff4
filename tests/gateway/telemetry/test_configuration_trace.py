from __future__ import annotations

import pytest

from gateway.telemetry.configuration_trace import (
    MAX_OPEN,
    MAX_STAGES,
    ConfigurationTraces,
    Stage,
    trace_id_of,
)


class FakeTracing:
    def __init__(self, *, enabled=True):
        self.enabled = enabled
        self.records = []

    def record(self, record):
        self.records.append(record)


@pytest.fixture
def tracing():
    return FakeTracing()


@pytest.fixture
def traces(tracing):
    return ConfigurationTraces(tracing, "etcd /crossgate")


def test_change_has_all_its_stages_and_who_made_it(traces, tracing):
    traces.begin("m", 7, 100, author="ann", message="faster", change_id="c-1")
    traces.record("m", Stage.WATCH, 90, 100)
    traces.record("m", Stage.VALIDATE, 95, 100)
    traces.record("m", Stage.LOAD, 110, 150, version="2", worker="cpu-0")
    traces.record("m", Stage.SWITCH, 150, 151)
    traces.settle("m", 151)
    assert tracing.records == []  # a drain may follow
    traces.record("m", Stage.DRAIN, 151, 400, version="1")
    traces.finish("m", 300)
    [change] = tracing.records
    assert [stage.stage.value for stage in change.stages] == ["watch", "validate", "load", "switch", "drain"]
    assert (change.model, change.revision, change.result) == ("m", 7, "applied")
    assert (change.start_ns, change.end_ns) == (90, 400)
    assert (change.author, change.message, change.change_id) == ("ann", "faster", "c-1")
    traces.finish("m", 500)
    assert len(tracing.records) == 1


@pytest.mark.parametrize(
    ("arguments", "result"),
    [({"error": "no file"}, "failed"), ({"error": "is no document", "refused": True}, "refused")],
)
def test_change_that_does_not_come_into_force_says_why(traces, tracing, arguments, result):
    traces.begin("m", 7, 100)
    traces.settle("m", 120, **arguments)
    traces.finish("m", 120)
    [change] = tracing.records
    assert (change.result, change.error) == (result, arguments["error"])


def test_later_revision_supersedes_and_the_same_goes_on(traces, tracing):
    traces.begin("m", 7, 100)
    traces.begin("m", 7, 110)
    traces.begin("m", 6, 110)
    assert tracing.records == []
    traces.begin("m", 8, 120)
    [change] = tracing.records
    assert (change.revision, change.result, change.end_ns) == (7, "superseded", 120)
    traces.finish("m", 130)
    assert len(tracing.records) == 1  # the new one goes on


def test_settled_change_that_is_superseded_stays_applied(traces, tracing):
    traces.begin("m", 7, 100)
    traces.settle("m", 110)
    traces.begin("m", 8, 120)
    assert [change.result for change in tracing.records] == ["applied"]


def test_what_began_before_the_change_is_none_of_it(traces, tracing):
    traces.record("m", Stage.LOAD, 10, 20)
    traces.begin("m", 7, 100)
    traces.record("m", Stage.LOAD, 50, 110)
    traces.settle("m", 120)
    traces.close(130)
    [change] = tracing.records
    assert change.stages == ()


def test_what_is_open_is_bounded(traces, tracing):
    for i in range(MAX_OPEN + 10):
        traces.begin(f"m{i}", 1, i)
    assert [change.model for change in tracing.records] == [f"m{i}" for i in range(10)]
    last = f"m{MAX_OPEN + 9}"
    for i in range(2 * MAX_STAGES):
        traces.record(last, Stage.LOAD, 1000 + i, 1001 + i, error="x" * 5000)
    traces.settle(last, 5000)
    traces.finish(last, 5000)
    stages = tracing.records[-1].stages
    assert len(stages) == MAX_STAGES
    assert max(len(stage.error) for stage in stages) <= 1024


def test_nothing_is_kept_without_tracing():
    tracing = FakeTracing(enabled=False)
    traces = ConfigurationTraces(tracing, "")
    traces.begin("m", 7, 100)
    traces.record("m", Stage.LOAD, 110, 120)
    traces.settle("m", 120)
    traces.finish("m", 120)
    assert tracing.records == []


def test_gateways_of_one_store_share_the_trace_and_others_do_not():
    ids = {trace_id_of(*key) for key in [("a", "m", 7), ("b", "m", 7), ("a", "n", 7), ("a", "m", 8)]}
    assert len(ids) == 4
    assert trace_id_of("a", "m", 7) in ids
