from __future__ import annotations

import asyncio

import pytest

from gateway.clock import MonotonicClock
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS, Histogram
from gateway.telemetry.loop_lag import PERIOD_NS, LoopLag

MS = 1_000_000


class ManualClock:
    """Far ahead of the real one, so that the alarm never rings by itself."""

    def __init__(self):
        self.now = MonotonicClock.now_ns() + 10**16

    def now_ns(self):
        return self.now


@pytest.fixture
async def lag():
    clock, seconds = ManualClock(), Histogram(LATENCY_BOUNDS_NS)
    lag = LoopLag(asyncio.get_running_loop(), clock, seconds)
    lag.start()
    yield lag, clock, seconds
    lag.close()


@pytest.mark.parametrize(
    ("late_ns", "count", "sum_ns"),
    [
        (0, 1, 0),
        (-MS, 1, 0),
        (3 * MS, 1, 3 * MS),
        (PERIOD_NS, 2, PERIOD_NS),
        (120 * MS, 3, (120 + 70 + 20) * MS),
    ],
)
async def test_a_stall_counts_for_every_tick_that_it_swallowed(lag, late_ns, count, sum_ns):
    lag, clock, seconds = lag
    clock.now += PERIOD_NS + late_ns
    lag.tick()
    assert (seconds.count, seconds.sum) == (count, sum_ns)


async def test_each_tick_is_measured_from_when_it_was_due(lag):
    lag, clock, seconds = lag
    for late_ns in (0, 2 * MS, 0):
        clock.now += PERIOD_NS + late_ns
        lag.tick()
    assert (seconds.count, seconds.sum) == (3, 2 * MS)


async def test_a_process_that_was_stopped_for_an_hour_counts_all_of_it(lag):
    lag, clock, seconds = lag
    clock.now += PERIOD_NS + 3600 * 1000 * MS
    lag.tick()
    assert seconds.count == 3600 * 20 + 1
    assert seconds.bucket_counts[-1] >= 3590 * 20


@pytest.mark.slow
async def test_a_loop_that_is_held_up_is_seen():
    seconds = Histogram(LATENCY_BOUNDS_NS)
    clock, loop = MonotonicClock(), asyncio.get_running_loop()
    lag = LoopLag(loop, clock, seconds)
    lag.start()
    until_ns = clock.now_ns() + 150 * MS
    while clock.now_ns() < until_ns:
        pass
    async with asyncio.timeout(10):
        while not seconds.count:
            await asyncio.sleep(0.001)
    lag.close()
    assert seconds.count >= 2
    assert seconds.sum >= 100 * MS
