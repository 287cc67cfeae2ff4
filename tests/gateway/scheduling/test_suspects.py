from __future__ import annotations

import pytest

from gateway.scheduling.suspects import (
    QUARANTINE_WINDOW_NS,
    Fate,
    KillLedger,
    LostInRun,
    Poison,
    RetryBudget,
    fate,
)


@pytest.mark.parametrize(
    ("alone", "lost", "retry", "budget", "expected"),
    [
        (False, 1, True, True, Fate.RUN_AGAIN),
        (False, 2, True, True, Fate.RUN_AGAIN),
        (False, 3, True, True, Fate.TOO_MANY_RUNS),
        (False, 1, False, True, Fate.NOT_RETRIED),
        (False, 1, True, False, Fate.NO_BUDGET),
        (False, 3, True, False, Fate.TOO_MANY_RUNS),
        (False, 3, False, False, Fate.NOT_RETRIED),
        (True, 2, True, True, Fate.CULPRIT),
        (True, 1, False, False, Fate.CULPRIT),
        (True, 3, True, False, Fate.CULPRIT),
    ],
)
def test_fate_of_a_member_of_a_lost_batch(alone, lost, retry, budget, expected):
    assert fate(alone=alone, lost=lost, retry=retry, budget=budget) is expected


def test_budget_allows_a_burst_and_then_a_tenth_of_what_succeeds():
    budget = RetryBudget(limit=3, per_success=0.1)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    budget.succeeded(9)
    assert not budget.take()
    budget.succeeded(1)
    assert budget.take()
    assert not budget.take()


def test_budget_is_bounded():
    budget = RetryBudget(limit=2, per_success=1)
    budget.succeeded(1_000_000)
    assert [budget.take() for _ in range(3)] == [True, True, False]


def test_a_kill_with_a_culprit_is_not_the_models(make_item):
    ledger = KillLedger()
    for _ in range(5):
        good, bad = make_item(), make_item()
        assert not ledger.record(0, [good, bad])
        ledger.guilty(bad)
        assert not ledger.settled(good, 0)
        assert not ledger.settled(bad, 0)


def test_culprits_one_after_the_other_without_a_success_mean_the_servable(make_item):
    ledger = KillLedger()
    assert [ledger.guilty(make_item()) for _ in range(5)] == [False, False, False, False, True]


def test_a_success_between_culprits_clears_the_servable(make_item):
    ledger = KillLedger()
    for _ in range(4):
        ledger.guilty(make_item())
    ledger.proven()
    assert not ledger.guilty(make_item())


def test_a_suspect_that_is_never_judged_explains_nothing_and_blames_nobody(make_item):
    ledger = KillLedger()
    for at in range(4):
        poison, mate = make_item(), make_item()
        ledger.record(at, [poison, mate])
        ledger.drop(poison)
        assert not ledger.settled(mate, at)


def test_three_kills_in_a_minute_without_a_culprit_quarantine(make_item):
    ledger = KillLedger()
    outcomes = []
    for at in range(3):
        item = make_item()
        assert not ledger.record(at, [item])
        outcomes.append(ledger.settled(item, at))
    assert outcomes == [False, False, True]


def test_kills_without_members_count_at_once():
    ledger = KillLedger()
    assert [ledger.record(at, []) for at in range(3)] == [False, False, True]


def test_a_kill_waits_for_its_last_member(make_item):
    ledger = KillLedger()
    first, second = make_item(), make_item()
    ledger.record(0, [])
    ledger.record(0, [])
    ledger.record(0, [first, second])
    assert not ledger.settled(first, 1)
    assert ledger.settled(second, 2)


def test_kills_of_long_ago_are_forgiven(make_item):
    ledger = KillLedger()
    assert not ledger.record(0, [])
    assert not ledger.record(1, [])
    assert not ledger.record(QUARANTINE_WINDOW_NS + 2, [])


def test_the_window_is_inclusive():
    ledger = KillLedger()
    ledger.record(0, [])
    ledger.record(1, [])
    assert ledger.record(QUARANTINE_WINDOW_NS, [])


def test_errors_name_the_model_and_the_reason():
    assert str(Poison("m", "killed by SIGSEGV")) == (
        "model m: running this request alone ended its worker: killed by SIGSEGV"
    )
    assert str(LostInRun("m", "killed", Fate.NO_BUDGET.value)) == (
        "model m: killed; the gateway's retry budget is used up"
    )
