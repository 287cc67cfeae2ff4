"""The data plane and the calls that it parks: admitted, counted and settled as all calls are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "lifecycle"))

from rig import ON_DEMAND, SECOND_NS, Rig, model

from gateway.admission.admission import DeadlinePassed, GatewayFull
from gateway.errors import Expired
from gateway.telemetry.outcome import Outcome


@pytest.fixture
async def asleep():
    """A model that is asleep, whose worker is not up."""
    async with Rig(up=False) as rig:
        rig.want(model("a", **ON_DEMAND))
        await rig.settle()
        yield rig


async def test_who_waits_holds_bytes_until_it_is_settled(asleep):
    calls = [asleep.call("a", size_bytes=1000) for _ in range(3)]
    assert (asleep.admission.held_bytes, asleep.dataplane.unsettled) == (3000, 3)
    asleep.dataplane.on_cancels(calls[:1])
    assert (asleep.admission.held_bytes, asleep.dataplane.unsettled) == (2000, 2)
    asleep.worker_up()
    await asleep.settle(answering=False)
    assert asleep.dataplane.unsettled == 2  # they run
    await asleep.settle()
    assert (asleep.admission.held_bytes, asleep.dataplane.unsettled) == (0, 0)


async def test_who_waits_counts_against_the_bytes_that_the_gateway_may_hold(asleep):
    asleep.admission._max_held_bytes = 2500
    calls = [asleep.call("a", size_bytes=1000) for _ in range(3)]
    assert [asleep.answer(call) for call in calls[:2]] == [None, None]
    assert isinstance(asleep.answer(calls[2]), GatewayFull)
    asleep.worker_up()
    await asleep.settle()
    assert [asleep.answer(call) for call in calls[:2]] == ["1", "1"]


async def test_who_comes_too_late_does_not_wait(asleep):
    call = asleep.call("a", deadline_ns=asleep.clock.now)
    assert isinstance(asleep.answer(call), DeadlinePassed)
    assert asleep.pool.started == set()


async def test_the_deadline_goes_on_counting_after_the_wait(asleep):
    call = asleep.call("a", deadline_ns=asleep.clock.now + 2 * SECOND_NS)
    await asleep.advance(SECOND_NS)
    asleep.worker_up()
    await asleep.advance(SECOND_NS, answering=False)
    assert isinstance(asleep.answer(call), Expired)
    assert "during the run" in str(asleep.answer(call))


async def test_cancelling_and_expiring_in_one_moment_settles_once(asleep):
    call = asleep.call("a", deadline_ns=asleep.clock.now + SECOND_NS)
    asleep.clock.now += SECOND_NS
    asleep.dataplane.on_cancels([call])
    asleep.dataplane._ring()
    asleep.dataplane.on_cancels([call])
    assert asleep.answer(call) is None
    assert asleep.dataplane.unsettled == 0


async def test_a_call_that_was_cancelled_after_its_wait_is_a_cancelled_call(asleep):
    call = asleep.call("a")
    asleep.worker_up()
    await asleep.settle(answering=False)
    asleep.dataplane.on_cancels([call])
    assert asleep.dataplane.unsettled == 0
    await asleep.settle()
    assert asleep.answer(call) is None


async def test_waking_nobody_costs_nothing_and_changes_nothing(asleep):
    asleep.dataplane.wake_parked()
    call = asleep.call("a")
    for _ in range(3):
        asleep.dataplane.wake_parked()
    assert (asleep.parked, asleep.answer(call)) == (1, None)


async def test_every_end_of_a_wait_is_accounted_for(asleep):
    cancelled = asleep.call("a")
    asleep.call("a", deadline_ns=asleep.clock.now + SECOND_NS)
    asleep.dataplane.on_cancels([cancelled])
    await asleep.advance(2 * SECOND_NS)
    assert counted(asleep) == {"a": {Outcome.CANCELLED: 1, Outcome.EXPIRED: 1}}


async def test_who_may_not_wait_counts_for_the_model_that_was_never_loaded(asleep):
    asleep.call("a", deadline_ns=asleep.clock.now)
    asleep.call("b")
    assert counted(asleep) == {"a": {Outcome.EXPIRED: 1}, "": {Outcome.NOT_FOUND: 1}}


async def test_the_account_of_a_model_that_was_never_loaded_goes_with_the_model(asleep):
    asleep.call("a")
    asleep.want(without=("a",))
    await asleep.settle()
    assert [account.model for account in asleep.accounts] == [""]


def counted(rig):
    """Return {model: {outcome: count}} of what has ended."""
    found = {}
    for account in rig.accounts:
        for outcome, count in account.outcomes.items():
            if count:
                found.setdefault(account.model, {})[outcome] = count
    return found
