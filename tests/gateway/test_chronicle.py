"""What is kept and traced of requests that have ended."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.call import Call
from gateway.chronicle import Chronicle
from gateway.errors import ModelFailure, NotFound
from gateway.routing.table import ModelRoute, RouteTable
from gateway.telemetry.account import VersionAccount
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.recent import MAX_MATES
from gateway.telemetry.sampling import SampledBy, Sampler
from gateway.telemetry.trace import BatchTrace, FailureTrace
from gateway.telemetry.tracing import ActiveTracing, Tracing
from wire.frames import Done
from wire.frames import Outcome as RunOutcome

MS = 1_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SERVABLE = SimpleNamespace(account=VersionAccount("m", "1"), model="m", version="2", revision=9)
DONE = Done(RunOutcome.OK, 1, (), "", 5 * MS, 6 * MS, 7 * MS, 1 * MS, 9 * MS)
NOT_SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
QUICK, SLOW = 10 * MS, 200 * MS
UNSAMPLED = Sampler(0.0, slow_ns=100 * MS)


class FakeClock:
    now = 250 * MS

    def now_ns(self):
        return self.now


class FakePipeline:
    def __init__(self):
        self.records = []

    def record(self, record):
        self.records.append(record)


@pytest.fixture
def pipeline():
    return FakePipeline()


def chronicle(pipeline, sampler=UNSAMPLED, route=None):
    tracing = Tracing(sampler) if pipeline is None else ActiveTracing(pipeline, sampler)
    table = RouteTable({} if route is None else {"m": route})
    return Chronicle(FakeClock(), tracing, lambda: table), tracing.recent


def item(id_=1, trace=None, **fields):
    call = Call(id=id_, origin=None, model="m", inputs=(), arrived_ns=MS, request_id=f"r{id_}", **fields)
    return SimpleNamespace(id=id_, call=call, arrived_ns=MS, enqueued_ns=2 * MS, trace=trace)


def batch_of(*items):
    slot = SimpleNamespace(name="cpu-0", device="cpu")
    return SimpleNamespace(
        hosting=SimpleNamespace(slot=slot),
        items=items,
        rows=2 * len(items),
        close_reason="full",
        dispatched_ns=4 * MS,
    )


def answer(chronicle, batch, took_ns):
    chronicle.answered(batch, SERVABLE, batch.items, took_ns, DONE)


def test_request_that_is_neither_slow_nor_sampled_leaves_nothing(pipeline):
    told, recent = chronicle(pipeline)
    answer(told, batch_of(item(1), item(2)), [QUICK, QUICK])
    assert pipeline.records == recent.latest(10) == []


def test_slow_member_is_traced_and_kept_without_its_mates(pipeline):
    told, recent = chronicle(pipeline)
    answer(told, batch_of(item(1), item(2), item(3)), [QUICK, SLOW, QUICK])
    [record] = pipeline.records
    assert isinstance(record, BatchTrace)
    [member] = record.members
    assert (member.request_id, member.context.sampled_by) == ("r2", SampledBy.SLOW)
    [kept] = recent.find("r2")
    assert (kept.why, kept.outcome, kept.model, kept.version, kept.revision) == ("slow", "ok", "m", "2", 9)
    assert (kept.mates, kept.execution.requests, kept.execution.rows) == (("r1", "r3"), 3, 6)
    assert (kept.execution.worker, kept.execution.close_reason) == ("cpu-0", "full")
    assert [phase.name for phase in kept.phases] == ["admission", "queue", "arena", "wait", "run", "reply"]
    assert kept.traced
    assert recent.find(member.context.trace_id_hex) == [kept]
    assert len(recent.latest(10)) == 1


def test_slow_request_is_kept_without_a_collector():
    told, recent = chronicle(None)
    answer(told, batch_of(item(1)), [SLOW])
    [kept] = recent.find("r1")
    assert (kept.traced, kept.trace_id) == (False, "")


def test_slow_request_of_a_caller_who_wants_no_trace_is_kept_under_the_callers_trace(pipeline):
    told, recent = chronicle(pipeline)
    answer(told, batch_of(item(1, metadata={"traceparent": NOT_SAMPLED})), [SLOW])
    assert pipeline.records == []
    [kept] = recent.find(TRACE)
    assert not kept.traced


def test_large_batch_names_some_of_the_mates():
    told, recent = chronicle(None)
    answer(told, batch_of(*[item(i) for i in range(1, 513)]), [QUICK] * 511 + [SLOW])
    [kept] = recent.find("r512")
    assert (len(kept.mates), kept.execution.requests) == (MAX_MATES, 512)


@pytest.mark.parametrize(
    ("errors", "outcome", "traced"),
    [
        ("server", Outcome.FAILED, True),
        ("server", Outcome.CANCELLED, False),
        ("all", Outcome.CANCELLED, True),
        ("none", Outcome.FAILED, False),
    ],
)
def test_failure_is_kept_always_and_traced_as_the_policy_says(pipeline, errors, outcome, traced):
    told, recent = chronicle(pipeline, Sampler(0.0, errors=errors))
    failed = item(1)
    told.failed(failed, SERVABLE, batch_of(failed), ModelFailure("out of range"), outcome, None, 20 * MS)
    assert bool(pipeline.records) is traced
    [kept] = recent.find("r1")
    assert (kept.why, kept.outcome, kept.message, kept.traced) == ("error", outcome, "out of range", traced)
    assert [phase.name for phase in kept.phases] == ["admission", "queue", "wait"]


def test_tries_that_were_lost_are_told_with_the_end_and_forgotten(pipeline):
    told, recent = chronicle(pipeline)
    suspect = item(1)
    told.lost(batch_of(suspect), suspect, "killed by signal 9", 8 * MS)
    told.lost(batch_of(suspect), suspect, "killed by signal 11", 9 * MS)
    answer(told, batch_of(suspect), [SLOW])
    [kept] = recent.find("r1")
    assert [(t.worker, t.lost_ns, t.reason) for t in kept.tries] == [
        ("cpu-0", 8 * MS, "killed by signal 9"),
        ("cpu-0", 9 * MS, "killed by signal 11"),
    ]
    assert pipeline.records[0].members[0].tries == kept.tries
    answer(told, batch_of(item(1)), [SLOW])
    assert recent.latest(1)[0].tries == ()


def test_tries_of_a_quick_request_are_forgotten_and_those_of_one_are_bounded():
    told, recent = chronicle(None)
    suspect = item(1)
    told.lost(batch_of(suspect), suspect, "lost", 8 * MS)
    answer(told, batch_of(suspect), [QUICK])
    for i in range(100):
        told.lost(batch_of(suspect), suspect, "x" * 5000, i)
    told.failed(suspect, SERVABLE, None, ModelFailure("x"), Outcome.FAILED, None, 20 * MS)
    [kept] = recent.find("r1")
    assert [t.lost_ns for t in kept.tries] == list(range(92, 100))
    assert max(len(t.reason) for t in kept.tries) <= 1024


def test_refused_request_is_kept_with_what_it_was_told(pipeline):
    told, recent = chronicle(pipeline, Sampler(0.0, errors="all"))
    call = Call(id=1, origin=None, model="x" * 5000, inputs=(), arrived_ns=MS, request_id="r1")
    told.refused(call, NotFound("unknown model"), Outcome.NOT_FOUND, "", 0, 2 * MS)
    [kept] = recent.find("r1")
    assert (kept.outcome, kept.message, kept.version, kept.enqueued_ns) == (
        "not_found",
        "unknown model",
        "",
        0,
    )
    assert len(kept.model) == 256
    [record] = pipeline.records
    assert isinstance(record, FailureTrace)
    assert record.context.sampled_by is SampledBy.ERROR


ONE, TWO = SimpleNamespace(version="1"), SimpleNamespace(version="2")
CANARY = ModelRoute(
    "m",
    9,
    {"1": ONE, "2": TWO},
    labels={"canary": "2"},
    rules=[({"x-cohort": "beta"}, "2")],
    split={"1": 95.0, "2": 5.0},
)
STICKY = ModelRoute("m", 9, {"1": ONE, "2": TWO}, split={"1": 1.0, "2": 1.0}, sticky="x-user")


@pytest.mark.parametrize(
    ("route", "fields", "expected"),
    [
        (CANARY, {"version": "2"}, "the version asked for"),
        (CANARY, {"version": "canary"}, "label canary"),
        (CANARY, {"metadata": {"x-cohort": "beta"}}, "rule 1"),
        (CANARY, {}, "split, 0.05 of the requests"),
        (STICKY, {"metadata": {"x-user": "ann"}}, "sticky x-user"),
        (ModelRoute("m", 9, {"2": TWO}, split={"2": 1.0}), {}, "the only version"),
        (None, {}, ""),
    ],
)
def test_kept_request_says_what_chose_its_version(route, fields, expected):
    told, recent = chronicle(None, route=route)
    answer(told, batch_of(item(1, **fields)), [SLOW])
    assert recent.find("r1")[0].route == expected
