from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.cost import UNKNOWN, CostModel

US = 1_000


def observed(*runs, now_ns=0):
    model = CostModel()
    for rows, run_ns in runs:
        model.observe(rows, run_ns, now_ns)
    return model


def test_nothing_is_predicted_before_the_first_run():
    assert CostModel().snapshot(0) is UNKNOWN
    assert UNKNOWN.predict_ns(100) == 0


def test_two_sizes_give_the_fixed_part_and_the_part_per_row():
    model = observed(*[(1, 150 * US), (8, 500 * US)] * 50)
    cost = model.snapshot(0)
    assert cost.fixed_ns == pytest.approx(100 * US, rel=0.01)
    assert cost.per_row_ns == pytest.approx(50 * US, rel=0.01)
    assert cost.predict_ns(4) == pytest.approx(300 * US, rel=0.05)


def test_one_size_is_half_fixed_half_growing():
    cost = observed(*[(4, 400 * US)] * 10).snapshot(0)
    assert (cost.fixed_ns, cost.per_row_ns) == (pytest.approx(200 * US), pytest.approx(50 * US))


def test_it_follows_a_model_that_became_slower():
    model = observed(*[(1, 100 * US), (8, 200 * US)] * 50)
    for _ in range(100):
        model.observe(1, 1000 * US, 0)
        model.observe(8, 2000 * US, 0)
    assert model.snapshot(0).predict_ns(1) > 900 * US


def test_noise_leans_towards_the_tail():
    quiet = observed(*[(1, 100 * US)] * 40).snapshot(0)
    noisy = observed(*[(1, 50 * US), (1, 150 * US)] * 20).snapshot(0)
    assert noisy.predict_ns(1) > quiet.predict_ns(1)


def test_the_floor_is_the_fastest_recent_run():
    model = observed((8, 900 * US), (1, 100 * US), (8, 900 * US))
    assert model.snapshot(0).floor_ns == pytest.approx(102 * US)


def test_the_floor_decays_while_nothing_runs():
    model = observed((1, 100 * US))
    assert model.snapshot(5_000_000_000).floor_ns == 100 * US
    later = model.snapshot(20_000_000_000)
    assert later.floor_ns == pytest.approx(25 * US)
    assert later.fixed_ns == model.snapshot(20_000_000_001).fixed_ns


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 10**9)), min_size=1, max_size=40))
def test_a_cost_is_never_negative(runs):
    cost = observed(*runs).snapshot(0)
    assert min(cost) >= 0
    assert 0 < cost.predict_ns(1) <= cost.predict_ns(64)
    assert cost.floor_ns <= max(run_ns for _, run_ns in runs)
