from __future__ import annotations

import asyncio
import contextlib

import pytest
from pool_elsewhere import AWAY, SLOT, UNREACHABLE, FakeWay, turns

from gateway.workerpool.remote.place import Place
from gateway.workerpool.remote.worker import RemoteWorker


@pytest.fixture
async def start(clock, heard):
    """Start workers over a way; with the test their supervision ends."""
    tasks = []

    async def begin(way):
        place = Place(way)
        worker = RemoteWorker(SLOT, "cpu", heard.events(), clock, place, lambda: heard.said.append("state"))
        tasks.append(asyncio.ensure_future(worker.supervise()))
        await turns()
        return worker, place

    yield begin
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_link_that_is_lost_is_told_and_made_again(start, heard):
    way = FakeWay()
    worker, _ = await start(way)
    assert worker.connected_to == "grpc://a"
    way.links[0].close("cut")
    await turns()
    assert heard.said == ["state", ("up", 100), ("down", "really, cut"), "state", "state", ("up", 101)]
    assert (worker.pid, worker.restarts) == (101, 1)


async def test_worker_of_another_kind_is_not_taken(start, heard):
    way = FakeWay()
    way.capacity = 3
    worker, _ = await start(way)
    assert heard.said == []
    assert "met the worker of cpu: cpu, capacity 3" in worker.down_reason
    assert way.links[0].lost


async def test_pool_that_does_not_answer_is_out_of_reach_until_it_does(start, clock, heard):
    way = FakeWay()
    way.failure = UNREACHABLE
    worker, place = await start(way)
    assert worker.unreachable_since_ns == clock.now_ns()
    assert worker.down_reason == "nobody answers"
    place.move(FakeWay("grpc://b"))
    await turns()
    assert worker.unreachable_since_ns is None
    assert worker.connected_to == "grpc://b"


async def test_pool_whose_worker_is_away_is_in_reach(start, heard):
    way = FakeWay()
    way.failure = AWAY
    worker, _ = await start(way)
    assert worker.unreachable_since_ns is None
    assert worker.down_reason == "worker cpu: starting"


async def test_without_a_place_nothing_is_tried_and_a_link_stays(start, heard):
    way = FakeWay()
    worker, place = await start(way)
    place.move(None)
    await turns()
    assert worker.connected
    way.links[0].close("cut")
    await turns()
    assert not worker.connected
    assert len(way.links) == 1
    place.move(way)
    await turns()
    assert len(way.links) == 2


async def test_pool_that_says_goodbye_is_left_when_all_is_answered(start, heard):
    way = FakeWay()
    await start(way)
    link = way.links[0]
    link.busy = True
    link.goodbye("it ends")
    assert link.drained
    assert link.lost is None
    link.answer(1)
    await turns()
    assert heard.said[2:4] == [("done", 1), ("down", "its pool ends: it ends")]


async def test_goodbye_to_an_idle_link_ends_it_at_once(start, heard):
    way = FakeWay()
    await start(way)
    way.links[0].goodbye("it ends")
    await turns()
    assert ("down", "its pool ends: it ends") in heard.said


async def test_hung_worker_is_lost_at_once_and_its_pool_ends_it(start, heard):
    way = FakeWay()
    worker, _ = await start(way)
    worker.kill("a run hangs")
    await turns()
    assert ("down", "a run hangs") in heard.said
    assert way.ended == [("cpu", 100, "a run hangs")]
    assert worker.connected


async def test_worker_that_is_not_there_cannot_be_killed(start, heard):
    way = FakeWay()
    way.failure = AWAY
    worker, _ = await start(way)
    worker.kill("a load hangs")
    await turns()
    assert way.ended == []


async def test_supervision_that_ends_closes_the_link_without_a_word(start, clock, heard):
    way = FakeWay()
    worker = RemoteWorker(SLOT, "cpu", heard.events(), clock, Place(way), lambda: None)
    task = asyncio.ensure_future(worker.supervise())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert way.links[0].lost == "the gateway closes the link"
    assert heard.said == [("up", 100)]
