from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from pool_elsewhere import UNREACHABLE, FakeWay, turns

from gateway.config.registration import Registration, write_registration
from gateway.config.store.store import Change, Entry, StoreRefused
from gateway.workerpool.pool import Pool
from gateway.workerpool.remote.discovery import Discovery
from gateway.workerpool.remote.standing import PATIENCE_NS
from gateway.workerpool.remote.ways import WayRefused

A = Registration("n", "cpu", "cpu", 2, "grpc://a", 7, "0.1.0", 1, 1, (0,), runtimes=("loopback",))
B = msgspec.structs.replace(A, address="grpc://b", pid=8)
WIDER = msgspec.structs.replace(A, capacity=3)


class FakeStore:
    """A watch whose changes the test makes."""

    def __init__(self):
        self._changes = asyncio.Queue()
        self._revision = 0

    async def watch(self, span, *, after=None):
        assert "workers/n/cpu" in span
        while True:
            change = await self._changes.get()
            if isinstance(change, Exception):
                raise change
            yield change

    async def change(self, *puts, deletes=(), resync=False):
        """Put registrations, or {key: value}."""
        self._revision += 1
        entries = [
            Entry(each.key, write_registration(each), self._revision)
            if isinstance(each, Registration)
            else Entry(*each, self._revision)
            for each in puts
        ]
        self._changes.put_nowait(Change(self._revision, tuple(entries), tuple(deletes), resync))
        await turns()

    def fail(self, error):
        self._changes.put_nowait(error)


class FakeWays:
    def __init__(self):
        self.by_address = {"grpc://a": FakeWay("grpc://a"), "grpc://b": FakeWay("grpc://b")}
        self.refused = set()

    def to(self, registration):
        if registration.address in self.refused:
            raise WayRefused(f"{registration.address} is not connected to")
        return self.by_address[registration.address]


class Scene:
    def __init__(self, clock, heard):
        self.clock = clock
        self.heard = heard
        self.store = FakeStore()
        self.ways = FakeWays()
        self.pool = Pool([], clock)
        self.slot_changes = 0
        self.pool.observe(heard.events(), self._count)
        self.discovery = Discovery(self.store, self.pool, clock, self.ways)

    def _count(self):
        self.slot_changes += 1

    @property
    def slots(self):
        return sorted(self.pool.slots)

    @property
    def a(self):
        return self.ways.by_address["grpc://a"]

    @property
    def b(self):
        return self.ways.by_address["grpc://b"]

    async def start(self):
        self.pool.start("n/cpu")
        await turns()


@pytest.fixture
async def scene(clock, heard):
    scene = Scene(clock, heard)
    async with scene.pool:
        task = asyncio.ensure_future(scene.discovery.run())
        yield scene
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_registered_slot_is_taken_up_as_its_registration_says(scene):
    await scene.store.change(A, resync=True)
    slot = scene.pool.slots["n/cpu"]
    assert (slot.node, slot.capacity, slot.cpus, slot.runtimes) == ("n", 2, (0,), ("loopback",))
    assert slot.fetches
    assert scene.slot_changes == 1
    await scene.start()
    assert scene.heard.said == [("up", 100)]


async def test_slot_out_of_reach_is_not_taken_up(scene):
    scene.a.failure = UNREACHABLE
    await scene.store.change(A, resync=True)
    assert scene.slots == []
    assert scene.discovery.problems == {A.key: "nobody answers"}


async def test_pool_that_is_not_what_is_registered_is_not_taken_up(scene):
    scene.ways.by_address["grpc://a"] = FakeWay("grpc://a", node="another")
    await scene.store.change(A, resync=True)
    assert scene.slots == []
    assert "grpc://a is node another with cpu" in scene.discovery.problems[A.key]


async def test_way_that_may_not_be_taken_is_not_even_tried(scene):
    scene.ways.refused.add("grpc://a")
    await scene.store.change(A, resync=True)
    assert scene.slots == []
    assert scene.a.asked == 0
    assert scene.discovery.problems == {A.key: "grpc://a is not connected to"}
    await scene.store.change(B)
    assert scene.slots == ["n/cpu"]
    assert scene.discovery.problems == {}


async def test_slot_that_nobody_uses_goes_with_its_registration(scene):
    await scene.store.change(A, resync=True)
    await scene.store.change(deletes=[A.key])
    assert scene.slots == []
    assert scene.slot_changes == 2
    await scene.store.change(A)
    assert scene.slots == ["n/cpu"]


async def test_established_link_outlives_its_registration(scene):
    await scene.store.change(A, resync=True)
    await scene.start()
    await scene.store.change(resync=True)
    assert scene.slots == ["n/cpu"]
    assert scene.heard.said == [("up", 100)]
    scene.a.links[0].close("cut")
    await turns()
    assert scene.slots == []
    assert scene.heard.said[-1] == ("down", "really, cut")
    assert len(scene.a.links) == 1


async def test_established_link_stays_when_another_pool_registers_the_slot(scene):
    await scene.store.change(A, resync=True)
    await scene.start()
    await scene.store.change(B)
    assert scene.heard.said == [("up", 100)]
    assert "the link to grpc://a stays" in scene.discovery.problems[A.key]
    scene.a.links[0].close("cut")
    await turns()
    assert len(scene.b.links) == 1
    assert scene.slots == ["n/cpu"]
    assert scene.discovery.problems == {}


async def test_slot_that_has_changed_is_another_one_once_its_link_is_lost(scene):
    await scene.store.change(A, resync=True)
    await scene.start()
    scene.a.capacity = 3
    await scene.store.change(WIDER)
    assert scene.pool.slots["n/cpu"].capacity == 2
    scene.a.links[0].close("cut")
    await turns()
    assert scene.pool.slots["n/cpu"].capacity == 3
    await scene.start()
    assert scene.heard.said[-1] == ("up", 101)


async def test_slot_goes_when_its_pool_stays_out_of_reach(scene):
    await scene.store.change(A, resync=True)
    await scene.start()
    scene.a.failure = UNREACHABLE
    scene.a.links[0].close("cut")
    await turns()
    assert scene.slots == ["n/cpu"]
    scene.clock.time_ns += PATIENCE_NS
    await scene.store.change(msgspec.structs.replace(A, release="0.2.0"))
    assert scene.slots == []
    assert scene.discovery.problems == {A.key: "nobody answers"}


async def test_malformed_registration_is_passed_over(scene, caplog):
    await scene.store.change(("workers/n/cpu", b"{}"), ("workers/n/x", b"nonsense"), resync=True)
    await scene.store.change(("workers/n/cpu", b"{}"))
    assert scene.slots == []
    assert set(scene.discovery.problems) == {"workers/n/cpu", "workers/n/x"}
    assert len([r for r in caplog.records if "workers/n/cpu" in r.getMessage()]) == 1
    await scene.store.change(A, deletes=["workers/n/x"])
    assert scene.slots == ["n/cpu"]
    assert scene.discovery.problems == {}


async def test_store_that_refuses_changes_nothing_and_is_reported(scene):
    await scene.store.change(A, resync=True)
    scene.store.fail(StoreRefused("no permission"))
    await turns()
    assert scene.slots == ["n/cpu"]
    assert scene.discovery.problem == "no permission"


async def test_the_slots_are_known_once_each_was_tried(scene):
    heard = asyncio.ensure_future(scene.discovery.wait_heard())
    await turns()
    assert not heard.done()
    scene.a.failure = UNREACHABLE
    await scene.store.change(A, resync=True)
    async with asyncio.timeout(1):
        await heard
    assert scene.discovery.problems == {A.key: "nobody answers"}


async def test_without_registrations_the_slots_are_known_at_once(scene):
    await scene.store.change(resync=True)
    async with asyncio.timeout(1):
        await scene.discovery.wait_heard()
    assert scene.slots == []


async def test_a_store_that_refuses_has_no_slots_to_wait_for(scene):
    scene.store.fail(StoreRefused("permission denied"))
    await turns()
    async with asyncio.timeout(1):
        await scene.discovery.wait_heard()
