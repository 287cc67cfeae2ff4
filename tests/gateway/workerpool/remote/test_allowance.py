from __future__ import annotations

import pytest

from gateway.workerpool.remote.allowance import Allowance
from wire.arena import ArenaFull, RegionTooLarge


def test_small_batches_share_one_segment():
    allowance = Allowance(100, 1000)
    allowance.take(1, 60)
    with pytest.raises(ArenaFull):
        allowance.take(2, 41)
    allowance.take(2, 40)
    assert allowance.used_bytes == 100
    assert allowance.give_back(1)
    allowance.take(3, 60)


def test_large_batches_share_the_budget_and_leave_the_segment_alone():
    allowance = Allowance(100, 1000)
    allowance.take(1, 600)
    allowance.take(2, 100)
    with pytest.raises(ArenaFull):
        allowance.take(3, 401)
    allowance.take(3, 400)
    assert allowance.give_back(1)
    allowance.take(4, 600)


def test_batch_over_the_budget_never_fits():
    with pytest.raises(RegionTooLarge):
        Allowance(100, 1000).take(1, 1001)


def test_batch_is_given_back_once():
    allowance = Allowance(100, 1000)
    allowance.take(1, 60)
    assert 1 in allowance
    assert allowance.give_back(1)
    assert not allowance.give_back(1)
    assert allowance.used_bytes == 0
