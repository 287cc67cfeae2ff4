from __future__ import annotations

import pytest

from gateway.admin.recent import Recent, quantile
from gateway.telemetry.account import VersionAccount
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS
from gateway.telemetry.outcome import Outcome

S = 1_000_000_000
MS = 1_000_000


def run(account, requests, total_ns=2 * MS, rows=1):
    account.record_batch([rows] * requests, [0] * requests, [total_ns] * requests, 1, 1, 1, "full", "cpu", 1)


@pytest.mark.parametrize(
    ("sampled_s", "now_s", "window_s", "requests"),
    [
        ([], 2, 2, 2),  # one a second since the start
        ([5], 7, 7, 7),
        ([5, 10], 12, 12, 12),
        ([5, 10, 15], 16, 11, 11),
        ([*range(1, 21)], 20, 10, 10),
        ([*range(1, 21)], 20.5, 10.5, 10),
        ([5, 10, 100], 103, 93, 93),  # nobody sampled for long: the window is longer, the rate is right
    ],
)
def test_a_rate_is_that_of_the_window_at_any_pace_of_samples(sampled_s, now_s, window_s, requests):
    recent, account = Recent(0), VersionAccount("m", "1")
    samples = [round(second * S) for second in sampled_s]
    for second in range(1, int(now_s) + 1):
        run(account, 1)
        if second * S in samples:
            recent.sample(second * S, [account], {})
    figures = recent.figures(round(now_s * S), account)
    assert figures.window_s == pytest.approx(window_s)
    assert figures.requests_per_s * figures.window_s == pytest.approx(requests)


def test_what_came_before_the_window_counts_no_more():
    recent, account = Recent(0), VersionAccount("m", "1")
    run(account, 1000, total_ns=5 * S)
    for second in range(1, 13):
        recent.sample(second * S, [account], {})
    assert recent.figures(12 * S, account).requests_per_s == 0
    run(account, 10, total_ns=2 * MS)
    figures = recent.figures(12 * S, account)
    assert figures.requests_per_s == pytest.approx(1.0)
    assert figures.p99_s is not None
    assert figures.p99_s <= 0.0025


def test_an_account_that_was_opened_within_the_window_counts_whole():
    recent, account = Recent(0), VersionAccount("m", "1")
    recent.sample(5 * S, [], {})
    run(account, 20)
    recent.sample(6 * S, [account], {})
    assert recent.figures(10 * S, account).requests_per_s == pytest.approx(2.0)


def test_an_account_opened_again_under_the_same_name_starts_from_zero():
    recent, first, second = Recent(0), VersionAccount("m", "1"), VersionAccount("m", "1")
    run(first, 100)
    recent.sample(1 * S, [first], {})
    run(second, 10)
    assert recent.figures(10 * S, second).requests_per_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("outcomes", "requests", "errors"),
    [
        ({Outcome.FAILED: 5}, 5, 5),
        ({Outcome.CANCELLED: 5}, 5, 0),
        ({Outcome.EXHAUSTED: 2, Outcome.CANCELLED: 3, Outcome.EXPIRED: 1}, 6, 3),
    ],
)
def test_errors_are_what_failed_and_was_not_cancelled(outcomes, requests, errors):
    recent, account = Recent(0), VersionAccount("m", "1")
    for outcome, times in outcomes.items():
        for _ in range(times):
            account.record_failure(outcome, MS)
    figures = recent.figures(1 * S, account)
    assert (figures.requests_per_s, figures.errors_per_s) == (requests, errors)


def test_the_batch_size_is_the_mean_of_the_runs_in_the_window():
    recent, account = Recent(0), VersionAccount("m", "1")
    run(account, 64)
    for second in range(1, 12):
        recent.sample(second * S, [account], {})
    assert recent.figures(11 * S, account).mean_batch_size is None
    run(account, 4)
    run(account, 1, rows=2)
    assert recent.figures(11 * S, account).mean_batch_size == pytest.approx(3.0)


def buckets(**counts):
    found = [0] * (len(LATENCY_BOUNDS_NS) + 1)
    for name, count in counts.items():
        at = len(LATENCY_BOUNDS_NS) if name == "over" else LATENCY_BOUNDS_NS.index(int(name[2:]) * MS)
        found[at] = count
    return found


@pytest.mark.parametrize(
    ("q", "counts", "seconds"),
    [
        (0.5, {}, None),
        (0.5, {"ms10": 1}, 0.0075),
        (0.5, {"ms10": 100}, 0.0075),
        (0.99, {"ms10": 100}, 0.00995),
        (0.99, {"ms10": 99, "ms1000": 1}, 0.010),
        (0.999, {"ms10": 99, "ms1000": 1}, 0.95),
        (0.5, {"over": 3}, 10.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(q, counts, seconds):
    found = quantile(q, buckets(**counts), LATENCY_BOUNDS_NS)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_the_first_bucket_begins_at_zero():
    counts = [4, *[0] * len(LATENCY_BOUNDS_NS)]
    assert quantile(0.5, counts, LATENCY_BOUNDS_NS) == pytest.approx(50e-6)


def test_utilisation_is_the_share_of_the_capacity_in_the_window():
    recent = Recent(0)
    recent.sample(1 * S, [], {"cpu": 4 * S})
    for second in range(2, 12):
        recent.sample(second * S, [], {"cpu": 4 * S})
    assert recent.utilisation(11 * S, "cpu", 2, 9 * S) == pytest.approx(0.25)
    assert recent.utilisation(11 * S, "cpu", 2, 99 * S) == 1.0
    assert recent.utilisation(11 * S, "new", 1, 0) == 0.0
