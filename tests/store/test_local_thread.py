"""The thread of a local store: one call after the other, bounded in number and in time."""

import asyncio
import threading

import pytest
from store_home import LIMIT_S

from gateway.config.store import local_thread
from gateway.config.store.local_thread import LocalThread
from gateway.config.store.store import CommitUnclear, StoreAway


class Obstacle:
    """Work that takes until it is released."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._entered = asyncio.Event()
        self._released = threading.Event()

    def __call__(self):
        self._loop.call_soon_threadsafe(self._entered.set)
        assert self._released.wait(LIMIT_S)
        return "done"

    async def wait_entered(self):
        async with asyncio.timeout(LIMIT_S):
            await self._entered.wait()

    def release(self):
        self._released.set()


def started(idle=lambda: None, idle_s=lambda: None):
    return LocalThread("/a/store", idle, idle_s)


async def test_calls_are_done_in_order_and_never_on_the_loop():
    thread, done = started(), []
    calls = [thread.call(lambda n=n: done.append((n, threading.get_ident()))) for n in range(20)]
    await asyncio.gather(*calls)
    assert [n for n, _ in done] == list(range(20))
    assert len({ident for _, ident in done}) == 1
    assert done[0][1] != threading.get_ident()
    await thread.close(lambda: None)


async def test_an_error_comes_to_whoever_called():
    thread = started()
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0)
    assert await thread.call(lambda: 7) == 7
    await thread.close(lambda: None)


async def test_a_caller_that_is_cancelled_before_its_turn_gets_nothing_done():
    thread, obstacle, done = started(), Obstacle(), []
    first = asyncio.create_task(thread.call(obstacle))
    await obstacle.wait_entered()
    second = asyncio.create_task(thread.call(lambda: done.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    obstacle.release()
    assert await first == "done"
    await thread.close(lambda: None)
    assert done == []


async def test_a_call_that_takes_too_long_may_be_done_later(monkeypatch):
    monkeypatch.setattr(local_thread, "CALL_S", 0.02)
    thread, obstacle = started(), Obstacle()
    with pytest.raises(CommitUnclear, match="/a/store has not answered"):
        await thread.call(obstacle, CommitUnclear)
    obstacle.release()
    await thread.close(lambda: None)


async def test_when_too_many_wait_the_next_is_told_at_once(monkeypatch):
    monkeypatch.setattr(local_thread, "_CAPACITY", 2)
    thread, obstacle = started(), Obstacle()
    first = asyncio.create_task(thread.call(obstacle))
    await obstacle.wait_entered()
    waiting = [asyncio.create_task(thread.call(lambda: "done")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreAway, match="2 calls are waiting"):
        await thread.call(lambda: None)
    obstacle.release()
    assert await asyncio.gather(first, *waiting) == ["done"] * 3
    await thread.close(lambda: None)


async def test_it_looks_around_while_calls_keep_coming():
    looked = []
    thread = started(lambda: looked.append(1), lambda: 0.001)
    async with asyncio.timeout(LIMIT_S):
        while len(looked) < 3:
            await thread.call(lambda: None)
    await thread.close(lambda: None)


async def test_it_looks_around_while_nobody_calls():
    loop, looked = asyncio.get_running_loop(), asyncio.Event()
    thread = started(lambda: loop.call_soon_threadsafe(looked.set), lambda: 0.001)
    async with asyncio.timeout(LIMIT_S):
        await looked.wait()
    await thread.close(lambda: None)


async def test_closing_does_what_waits_and_then_the_last():
    thread, done = started(), []
    call = asyncio.create_task(thread.call(lambda: done.append("call")))
    await asyncio.sleep(0)
    await thread.close(lambda: done.append("last"))
    await call
    assert done == ["call", "last"]
    with pytest.raises(RuntimeError, match="has been closed"):
        await thread.call(lambda: None)


async def test_closing_does_not_wait_for_a_disk_that_hangs(monkeypatch):
    monkeypatch.setattr(local_thread, "_CLOSE_S", 0.02)
    thread, obstacle = started(), Obstacle()
    hanging = asyncio.create_task(thread.call(obstacle))
    await obstacle.wait_entered()
    async with asyncio.timeout(LIMIT_S / 2):
        await thread.close(lambda: None)
    assert not hanging.done()
    obstacle.release()
    assert await hanging == "done"
