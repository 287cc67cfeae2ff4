from __future__ import annotations

import asyncio

import pytest

from gateway.admin.draining import Drain
from gateway.admin.view import Stopping

MS = 1_000_000


class Waits:
    """In place of waiting: time goes on by 100 ms, and what is in flight becomes less by one."""

    def __init__(self, world, answered=1):
        self.world = world
        self.answered = answered
        self.count = 0

    async def __call__(self):
        self.count += 1
        assert self.count < 1000
        self.world.clock.ns += 100 * MS
        self.world.in_flight = max(self.world.in_flight - self.answered, 0)
        await asyncio.sleep(0)


def drain(world, answered=1):
    return Drain(world.controls(), lambda: world.in_flight, world.clock, Waits(world, answered))


async def test_a_drain_without_a_deadline_begins_and_answers_at_once(world):
    world.in_flight = 5
    assert await drain(world).begin(None, leave=False) == (True, 5, False)
    assert world.draining


async def test_a_drain_with_a_deadline_answers_when_nothing_is_in_flight(world):
    world.in_flight = 5
    assert await drain(world).begin(10.0, leave=False) == (True, 0, False)
    assert world.clock.ns == 1000 * MS + 500 * MS


async def test_a_drain_answers_at_its_deadline_with_what_is_left(world):
    world.in_flight = 50
    assert await drain(world).begin(1.0, leave=False) == (True, 40, False)
    assert world.draining
    assert not world.stops


async def test_beginning_and_ending_again_changes_nothing(world):
    it = drain(world)
    await it.begin(None, leave=False)
    assert (await it.begin(None, leave=False)).draining
    assert not it.end().draining
    assert not it.end().draining
    assert not world.draining


@pytest.mark.parametrize(
    ("in_flight", "answered", "deadline_s", "stops"),
    [
        (0, 1, 5.0, 1),
        (3, 1, 5.0, 1),
        (3, 0, 5.0, 2),  # the second one ends what is left
        (3, 0, None, 1),  # the process has a limit of its own
    ],
)
async def test_an_exit_stops_the_process_when_it_is_drained(world, in_flight, answered, deadline_s, stops):
    world.in_flight = in_flight
    it = drain(world, answered)
    assert (await it.begin(deadline_s, leave=True)).exiting
    assert not world.stops
    await it.run()
    assert world.stops == stops


async def test_an_exit_that_waits_can_be_given_up(world):
    world.in_flight = 3
    it = drain(world, answered=0)
    running = asyncio.create_task(it.run())
    await it.begin(50.0, leave=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert it.end() == (False, 3, False)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not world.stops
    await it.begin(0.0, leave=True)
    await running
    assert world.stops == 2


async def test_a_process_that_ends_cannot_take_requests_again(world):
    it = drain(world)
    await it.begin(None, leave=True)
    await it.run()
    with pytest.raises(Stopping):
        it.end()
    assert world.draining
