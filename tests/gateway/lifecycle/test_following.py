"""Following a source: what it says reaches those whom it is about, and what is amiss is told."""

from __future__ import annotations

import asyncio
import logging

import pytest
from rig import ManualClock, model

from gateway.config.gateway_document import validate_gateway
from gateway.config.store.store import StoreRefused
from gateway.lifecycle.desired import Desired
from gateway.lifecycle.following import Following
from gateway.telemetry.sampling import Sampling

SECOND_NS = 1_000_000_000


class FakeSource:
    """Says `snapshots`, then ends or raises."""

    where = "the fake source"

    def __init__(self, *snapshots, failure=None):
        self.away = ""
        self.from_disk = False
        self._snapshots = snapshots
        self._failure = failure

    async def changes(self):
        for snapshot in self._snapshots:
            yield snapshot
        if self._failure is not None:
            raise self._failure


class FakeReconciler:
    def __init__(self):
        self.desired = Desired()
        self.seen = []

    def observe(self, desired):
        self.desired = desired
        self.seen.append(desired)


class FakeTracing:
    def __init__(self):
        self.sampling, self.default = {}, "unset"

    def set_sampling(self, sampling):
        self.sampling = dict(sampling)

    def set_default(self, sampling):
        self.default = sampling


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def follow(clock):
    def follow(source):
        made = Following(source, FakeReconciler(), FakeTracing(), clock, log_level="info")
        return made, made._reconciler, made._tracing

    return follow


@pytest.fixture(autouse=True)
def levels():
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


async def test_every_snapshot_is_observed_in_its_order(follow):
    snapshots = [Desired(revision=n) for n in (1, 2, 3)]
    following, reconciler, _ = follow(FakeSource(*snapshots))
    await following.run()
    assert reconciler.seen == snapshots


async def test_a_source_that_refuses_at_the_start_ends_it(follow):
    following, *_ = follow(FakeSource(failure=StoreRefused("permission denied")))
    with pytest.raises(StoreRefused):
        await following.run()


async def test_models_and_the_gateways_document_say_what_is_traced(follow):
    one = model("a", trace={"ratio": 0.5})
    first = Desired({"a": one, "b": model("b")}, gateway=validate_gateway({"trace": {"ratio": 0.1}}))
    following, _, tracing = follow(FakeSource(first))
    await following.run()
    assert (tracing.sampling, tracing.default) == ({"a": Sampling(0.5)}, Sampling(0.1))


async def test_what_no_document_says_any_more_is_as_the_process_was_started(follow):
    one = model("a", trace={"ratio": 0.5})
    with_all = Desired(
        {"a": one, "b": one}, gateway=validate_gateway({"trace": {"ratio": 0.1}, "log_level": "error"})
    )
    without = Desired({"a": model("a", revision=2)}, changed=frozenset({"a", "b"}))
    following, _, tracing = follow(FakeSource(with_all, without))
    await following.run()
    assert (tracing.sampling, tracing.default) == ({}, Sampling())
    assert logging.getLogger().level == logging.INFO


async def test_what_is_traced_after_the_fact_is_as_the_document_says(follow):
    trace = {"slow_ms": 250, "errors": "all", "follow_parent": False}
    following, _, tracing = follow(FakeSource(Desired({"a": model("a", trace=trace)})))
    await following.run()
    assert tracing.sampling == {"a": Sampling(None, False, 250_000_000, "all")}


async def test_a_change_of_one_model_leaves_what_others_say(follow):
    a, b = model("a", trace={"ratio": 0.5}), model("b", trace={"ratio": 0.25})
    following, _, tracing = follow(
        FakeSource(
            Desired({"a": a, "b": b}),
            Desired({"a": a, "b": model("b", trace={"ratio": 0.75})}, changed=frozenset({"b"})),
        )
    )
    await following.run()
    assert tracing.sampling == {"a": Sampling(0.5), "b": Sampling(0.75)}


async def test_how_long_the_source_is_away_counts_from_when_that_was_seen(follow, clock):
    source = FakeSource()
    following, *_ = follow(source)
    assert (following.state.away, following.state.away_s) == ("", 0.0)
    clock.now += 5 * SECOND_NS
    assert following.state.heard_s == 0.0  # it is there, and has nothing to say
    source.away = "no endpoint answers"
    assert following.state.away_s == 0.0
    clock.now += 3 * SECOND_NS
    state = following.state
    assert (state.away, state.away_s, state.heard_s) == ("no endpoint answers", 3.0, 3.0)
    source.away = ""
    assert (following.state.away_s, following.state.heard_s) == (0.0, 0.0)
    source.away = "again"
    assert following.state.away_s == 0.0


async def test_how_long_the_source_is_away_does_not_depend_on_who_asks(follow, clock):
    source = FakeSource()
    following, *_ = follow(source)
    noticing = asyncio.ensure_future(following.notice(every_s=0.0))
    await asyncio.sleep(0)
    source.away = "no endpoint answers"
    for _ in range(3):
        await asyncio.sleep(0)
    clock.now += 7 * SECOND_NS
    assert (following.state.away_s, following.state.heard_s) == (7.0, 7.0)
    noticing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await noticing


async def test_what_is_wrong_with_documents_is_told_by_name(follow):
    wrong = Desired(problems={"a": "is wrong"}, gateway_problem="is wrong too")
    following, *_ = follow(FakeSource(wrong))
    await following.run()
    assert following.state.problems == {"a": "is wrong", "policies/gateway": "is wrong too"}
