from __future__ import annotations

import pytest

from gateway.telemetry.histogram import BATCH_SIZE_BOUNDS, LATENCY_BOUNDS_NS, Histogram


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([], (0, 0, 0, 0)),
        ([0], (1, 0, 0, 0)),
        ([10], (1, 0, 0, 0)),  # a bound belongs to its own bucket
        ([11], (0, 1, 0, 0)),
        ([10, 20, 30], (1, 1, 1, 0)),
        ([31, 10**18], (0, 0, 0, 2)),
    ],
)
def test_value_falls_into_the_first_bucket_whose_bound_is_not_below_it(values, counts):
    one_by_one, together = Histogram((10, 20, 30)), Histogram((10, 20, 30))
    for value in values:
        one_by_one.observe(value)
    together.observe_many(values)
    for histogram in (one_by_one, together):
        assert histogram.bucket_counts == counts
        assert histogram.count == len(values)
        assert histogram.sum == sum(values)


def test_value_may_be_observed_several_times_at_once():
    histogram = Histogram((10, 20))
    histogram.observe_times(15, 3)
    assert (histogram.bucket_counts, histogram.sum) == ((0, 3, 0), 45)


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1)])
def test_bounds_must_rise(bounds):
    with pytest.raises(ValueError, match="rise"):
        Histogram(bounds)


@pytest.mark.parametrize("bounds", [LATENCY_BOUNDS_NS, BATCH_SIZE_BOUNDS])
def test_built_in_bounds_are_valid(bounds):
    assert Histogram(bounds).bounds == bounds
