"""What is said of models to those who ask, and how asking loads them."""

from __future__ import annotations

import asyncio

import pytest
from rig import ON_DEMAND, Rig, model

from gateway.lifecycle import catalog
from gateway.routing.table import ModelAsleep, ModelNotReady, UnknownModel, UnknownVersion
from gateway.workerpool.link import RequestRefused


async def answered(rig, task):
    """Make passes until somebody who asks has an answer."""
    async with asyncio.timeout(10):
        while not task.done():
            await rig.settle()
    return task


async def test_who_asks_about_a_sleeping_model_has_it_loaded():
    async with Rig() as rig:
        rig.want(model("a", **ON_DEMAND, labels={"stable": "1"}))
        await rig.settle()
        with pytest.raises(ModelAsleep):
            rig.catalog.servable("a")
        asks = [asyncio.ensure_future(rig.catalog.awake("a", name)) for name in ("", "1", "stable")]
        for ask in asks:
            await answered(rig, ask)
        assert {ask.result().version for ask in asks} == {"1"}
        assert rig.link.log == [("load", "a", "1")]
        assert not rig.catalog._watchers


async def test_who_asks_about_a_model_that_cannot_be_loaded_is_told_why():
    async with Rig() as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        rig.link.failures["a"] = [RequestRefused("no such operator", retryable=False)]
        ask = await answered(rig, asyncio.ensure_future(rig.catalog.awake("a")))
        with pytest.raises(ModelNotReady, match="no such operator"):
            ask.result()


async def test_who_asks_about_a_model_that_goes_meanwhile_is_told():
    async with Rig(up=False) as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        ask = asyncio.ensure_future(rig.catalog.awake("a"))
        await asyncio.sleep(0)
        rig.want(without=("a",))
        await answered(rig, ask)
        with pytest.raises(UnknownModel):
            ask.result()


async def test_who_asks_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(catalog, "AWAKE_LIMIT_S", 0.01)
    async with Rig(up=False) as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        with pytest.raises(ModelNotReady, match="was not loaded within"):
            await rig.catalog.awake("a")
        assert not rig.catalog._watchers


async def test_who_goes_away_while_asking_leaves_nothing_behind():
    async with Rig(up=False) as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        ask = asyncio.ensure_future(rig.catalog.awake("a"))
        await asyncio.sleep(0)
        assert rig.catalog._watchers
        ask.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ask
        assert not rig.catalog._watchers


async def test_unknown_names_are_unknown_and_load_nothing():
    async with Rig() as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        with pytest.raises(UnknownModel):
            await rig.catalog.awake("b")
        with pytest.raises(UnknownVersion):
            await rig.catalog.awake("a", "9")
        await rig.settle()
        assert rig.link.log == []


async def test_a_gateway_is_ready_while_models_are_only_declared():
    async with Rig() as rig:
        assert rig.catalog.ready() == (False, ["the models have not been read yet"])
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        assert rig.catalog.ready() == (True, [])
        rig.admission.draining = True
        assert rig.catalog.ready() == (False, ["draining"])


async def test_a_gateway_is_not_ready_before_what_is_always_loaded_is_there():
    async with Rig(up=False) as rig:
        rig.want(model("a"), model("b", **ON_DEMAND))
        await rig.settle()
        assert rig.catalog.ready() == (False, ["a is loading"])
        rig.worker_up()
        await rig.settle()
        assert rig.catalog.ready() == (True, [])
