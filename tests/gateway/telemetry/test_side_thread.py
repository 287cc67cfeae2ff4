from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.telemetry.sampled import Sampled
from gateway.telemetry.side_thread import SideThread


@pytest.fixture
def thread():
    thread = SideThread("side")
    yield thread
    thread.close()


async def test_call_is_made_in_the_thread_and_answered_on_the_loop(thread):
    assert await thread.call(lambda: threading.current_thread().name) == "side"
    assert await thread.call(lambda: 2) == 2


async def test_what_a_call_raises_is_raised(thread):
    def fail():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await thread.call(fail)
    assert await thread.call(lambda: 1) == 1


async def test_cancelled_call_is_not_made_when_it_has_not_begun(thread):
    release, begun, made = threading.Event(), threading.Event(), []

    def hang():
        begun.set()
        release.wait(10)

    hanging = asyncio.ensure_future(thread.call(hang))
    waiting = asyncio.ensure_future(thread.call(lambda: made.append(1)))
    await asyncio.to_thread(begun.wait, 10)
    for task in (hanging, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    release.set()
    assert await thread.call(lambda: 3) == 3
    assert made == []


def test_thread_that_hangs_does_not_keep_the_loop_from_ending():
    release = threading.Event()

    async def main():
        thread = SideThread("side")
        try:
            async with asyncio.timeout(0.01):
                await thread.call(lambda: release.wait(10))
        except TimeoutError:
            return True

    assert asyncio.run(main())
    release.set()


async def test_samples_are_there_from_the_first_answer_and_go_with_a_failure():
    taken, asked = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def take():
        asked.append(1)
        loop.call_soon_threadsafe(taken.set)
        if len(asked) == 2:
            raise RuntimeError("broken")
        return [len(asked)]

    sampled = Sampled("figures", take, period_s=0)
    assert sampled.latest == ()
    seen = []
    task = asyncio.ensure_future(sampled.run())
    async with asyncio.timeout(10):
        while len(seen) < 3:
            await taken.wait()
            taken.clear()
            while len(seen) < len(asked):
                if not seen or sampled.latest != seen[-1]:
                    seen.append(sampled.latest)
                await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert () in seen
    assert [1] in seen
