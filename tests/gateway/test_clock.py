from __future__ import annotations

import asyncio
import time

import pytest

from gateway.clock import Alarm, MonotonicClock

LIMIT_S = 10


@pytest.fixture
async def alarm():
    """An alarm whose rings are counted; `rang` is set by each."""
    loop = asyncio.get_running_loop()
    rang = asyncio.Event()
    times = []

    def ring():
        times.append(time.monotonic_ns())
        rang.set()

    alarm = Alarm(loop, ring)
    alarm.rang, alarm.times = rang, times
    yield alarm
    alarm.close()


async def ring_of(alarm):
    async with asyncio.timeout(LIMIT_S):
        await alarm.rang.wait()
    alarm.rang.clear()
    return alarm.times[-1]


def test_the_clock_is_that_of_the_workers():
    before = time.monotonic_ns()
    assert before <= MonotonicClock().now_ns() <= time.monotonic_ns()


async def test_it_rings_at_its_time_and_not_before(alarm):
    at_ns = time.monotonic_ns() + 300_000
    alarm.set(at_ns)
    assert at_ns <= await ring_of(alarm)


@pytest.mark.parametrize("at_ns", [0, -5, 1])
async def test_a_time_that_is_past_rings_at_once(alarm, at_ns):
    alarm.set(at_ns)
    assert await ring_of(alarm)


async def test_setting_it_again_replaces_the_earlier_time(alarm):
    alarm.set(time.monotonic_ns() + 3_600_000_000_000)
    alarm.set(time.monotonic_ns() + 100_000)
    await ring_of(alarm)
    assert len(alarm.times) == 1


async def test_a_disarmed_alarm_does_not_ring(alarm):
    alarm.set(time.monotonic_ns() + 1_000_000)
    alarm.set(None)
    later = asyncio.Event()
    other = Alarm(asyncio.get_running_loop(), later.set)
    other.set(time.monotonic_ns() + 2_000_000)
    async with asyncio.timeout(LIMIT_S):
        await later.wait()
    other.close()
    assert alarm.times == []


async def test_it_can_be_set_from_its_own_ring(alarm):
    alarm.set(1)
    await ring_of(alarm)
    alarm.set(2)
    await ring_of(alarm)
    alarm.set(2)  # the same time again, after it rang
    await ring_of(alarm)
    assert len(alarm.times) == 3
