"""What a gateway says of itself in the store: transitions only, and nothing that the store cannot take."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from rig import ON_DEMAND, Rig, model

from gateway.config.keys import GATEWAYS, STATUS
from gateway.config.status import ModelReport, Presence
from gateway.config.store.local import open_local
from gateway.config.store.store import Delete
from gateway.lifecycle.reporting import Reporter, model_report
from gateway.workerpool.link import RequestRefused

PRESENCE = Presence("g", "n", "1.0", "127.0.0.1:1", "", 7, "2026-01-01T00:00:00+00:00")


@contextlib.asynccontextmanager
async def reporting(rig, store):
    reporter = Reporter(store, rig.clock, rig.reconciler, rig.catalog)
    known = rig._on_change

    def changed(models):
        known(models)
        reporter.changed(models)

    rig.reconciler._publication._on_change = changed
    task = asyncio.ensure_future(reporter.run(PRESENCE))
    try:
        yield reporter
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def said(store, condition):
    """Return what the store has of the gateway, once it is as it should be: ({model: report}, presence)."""
    async with asyncio.timeout(10):
        while True:
            reports = {
                entry.key.rpartition("/")[2]: msgspec.json.decode(entry.value, type=ModelReport)
                for entry in (await store.read(STATUS)).entries
            }
            there = [
                msgspec.json.decode(entry.value, type=Presence)
                for entry in (await store.read(GATEWAYS)).entries
            ]
            if there and condition(reports, there[0]):
                return reports, there[0]
            await asyncio.sleep(0.005)


async def test_what_is_loaded_is_reported_and_what_sleeps_is_not(tmp_path):
    async with open_local(tmp_path / "s.db") as store, Rig() as rig, reporting(rig, store):
        rig.want(model("a"), model("b", **ON_DEMAND))
        await rig.settle()
        reports, presence = await said(store, lambda reports, there: there.observed == 1)
        assert reports.keys() == {"a"}
        assert reports["a"].versions["1"].state == "READY"
        assert (reports["a"].revision, reports["a"].applied, reports["a"].waits) == (1, 1, ())
        assert not presence.draining
        rig.call("b")
        await rig.settle()
        await said(store, lambda reports, _: "b" in reports)
        rig.want(without=("a",))
        await rig.settle()
        await said(store, lambda reports, there: reports.keys() == {"b"} and there.observed == 2)


async def test_requests_and_passes_without_transitions_write_nothing(tmp_path):
    async with open_local(tmp_path / "s.db") as store, Rig() as rig, reporting(rig, store) as reporter:
        rig.want(model("a"))
        await rig.settle()
        await said(store, lambda reports, there: "a" in reports and there.observed == 1)
        before = (await store.read(STATUS)).revision
        for _ in range(20):
            rig.call("a")
            rig.reconciler._touch(("a",))
            await rig.settle()
        reporter.changed(("a",))
        rig.want(model("b", **ON_DEMAND))  # a mark: what came before it has been looked at
        await rig.settle()
        await said(store, lambda _, there: there.observed == 2)
        assert (await store.read(STATUS)).revision == before + 1  # the presence alone


async def test_a_new_routing_that_waits_says_for_what(tmp_path):
    async with Rig() as rig:
        rig.want(model("a"))
        await rig.settle()
        rig.link.failures["a"] = [RequestRefused("no such operator", retryable=False)]
        rig.want(
            model("a", versions=("1", "2"), version_policy={"all": True}, labels={"stable": "2"}, revision=2)
        )
        await rig.settle()
        report = model_report(rig.reconciler.served["a"])
        assert (report.revision, report.applied) == (2, 1)
        assert "version 2: cpu: no such operator" in report.waits


async def test_a_document_that_is_wrong_is_reported_even_where_nothing_serves():
    async with Rig() as rig:
        rig.want(problems={"a": "batching: is wrong"})
        await rig.settle()
        assert model_report(rig.reconciler.served["a"]).problem == "batching: is wrong"


@pytest.mark.parametrize("draining", [False, True])
async def test_at_the_end_everything_is_taken_back(tmp_path, draining):
    async with open_local(tmp_path / "s.db") as store:
        async with Rig() as rig, reporting(rig, store) as reporter:
            rig.want(model("a"))
            await rig.settle()
            await said(store, lambda reports, _: "a" in reports)
            if draining:
                rig.admission.draining = True
                reporter.changed()
                await said(store, lambda _, there: there.draining)
        assert (await store.read(STATUS)).entries == (await store.read(GATEWAYS)).entries == ()


async def test_what_an_operator_deletes_by_mistake_comes_back(tmp_path):
    async with open_local(tmp_path / "s.db") as store, Rig() as rig, reporting(rig, store):
        rig.want(model("a"))
        await rig.settle()
        await said(store, lambda reports, present: "a" in reports)
        await store.commit([Delete("gateways/g"), Delete("status/g/a")])
        reports, present = await said(store, lambda reports, present: "a" in reports)
        assert (reports["a"].versions["1"].state, present.gateway) == ("READY", "g")
