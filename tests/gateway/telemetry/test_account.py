"""The arithmetic of triton-inference-server/core `src/infer_stats.cc`, as tables."""

from __future__ import annotations

import pytest

from gateway.telemetry.account import VersionAccount
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.statistics import BatchStatistics, Duration


def record(account, rows, *, queue_ns=None, total_ns=None, device="cpu", reason="full", now_ms=1000, **rest):
    account.record_batch(
        rows,
        [10] * len(rows) if queue_ns is None else queue_ns,
        [100] * len(rows) if total_ns is None else total_ns,
        1,
        20,
        3,
        reason,
        device,
        now_ms,
        **rest,
    )


def test_new_account_counts_nothing():
    statistics = VersionAccount("m", "1").statistics()
    assert (statistics.inference_count, statistics.execution_count, statistics.last_inference_ms) == (0, 0, 0)
    assert statistics.inference_stats.success == Duration(0, 0)
    assert statistics.batch_stats == ()


def test_compute_time_of_a_batch_is_added_once_for_each_request():
    account = VersionAccount("m", "1")
    record(account, [2, 1, 5], queue_ns=[10, 20, 30], total_ns=[100, 200, 300])
    statistics = account.statistics()
    assert statistics.inference_count == 8
    assert statistics.execution_count == 1
    stats = statistics.inference_stats
    assert stats.success == Duration(3, 600)
    assert stats.queue == Duration(3, 60)
    assert stats.compute_input == Duration(3, 3)
    assert stats.compute_infer == Duration(3, 60)
    assert stats.compute_output == Duration(3, 9)
    assert stats.fail == Duration(0, 0)
    assert statistics.batch_stats == (BatchStatistics(8, Duration(1, 1), Duration(1, 20), Duration(1, 3)),)


@pytest.mark.parametrize(
    ("rows", "batch_rows", "inference_count", "batch_size"),
    [
        ([1], None, 1, 1),
        ([1, 1, 1], None, 3, 3),
        ([4, 2], None, 6, 6),
        ([0], None, 1, 1),  # Triton: max(1, batch size)
        ([0, 2, 0], None, 4, 4),
        ([4, 2], 9, 6, 9),  # a member of 3 rows was cancelled while it ran
        ([], 3, 0, 3),  # all were
    ],
)
def test_rows_are_counted_per_request_and_per_execution(rows, batch_rows, inference_count, batch_size):
    account = VersionAccount("m", "1")
    record(account, rows, batch_rows=batch_rows)
    statistics = account.statistics()
    assert statistics.inference_count == inference_count
    assert statistics.inference_stats.success.count == len(rows)
    assert [batch.batch_size for batch in statistics.batch_stats] == [batch_size]
    assert account.devices["cpu"].batch_size.sum == batch_size


def test_batch_statistics_are_kept_per_size_over_all_devices():
    account = VersionAccount("m", "1")
    record(account, [1, 1], device="cpu", reason="full")
    record(account, [2], device="cuda:0", reason="delay")
    record(account, [1], device="cpu", reason="full")
    statistics = account.statistics()
    assert statistics.execution_count == 3
    assert statistics.batch_stats == (
        BatchStatistics(1, Duration(1, 1), Duration(1, 20), Duration(1, 3)),
        BatchStatistics(2, Duration(2, 2), Duration(2, 40), Duration(2, 6)),
    )
    assert account.devices["cpu"].batches == {"full": 2}
    assert account.devices["cuda:0"].batches == {"delay": 1}
    assert account.devices["cpu"].run_seconds.count == 2
    assert account.devices["cpu"].batch_size.bucket_counts[:2] == (1, 1)


def test_last_inference_never_goes_back():
    account = VersionAccount("m", "1")
    record(account, [1], now_ms=2000)
    record(account, [1], now_ms=1500)
    assert account.statistics().last_inference_ms == 2000


def test_failures_count_apart_from_inferences():
    account = VersionAccount("m", "1")
    record(account, [1])
    account.record_failure(Outcome.EXPIRED, 700)
    account.record_failure(Outcome.EXPIRED, 300)
    account.record_failure(Outcome.INVALID, 5, rejected=True)
    statistics = account.statistics()
    assert statistics.inference_stats.fail == Duration(3, 1005)
    assert statistics.inference_stats.success.count == 1
    assert statistics.execution_count == 1
    assert account.outcomes == dict.fromkeys(Outcome, 0) | {
        Outcome.OK: 1,
        Outcome.EXPIRED: 2,
        Outcome.INVALID: 1,
    }


def test_request_time_covers_queued_requests_only():
    account = VersionAccount("m", "1")
    record(account, [1], total_ns=[100])
    account.record_failure(Outcome.EXPIRED, 1000)
    account.record_failure(Outcome.EXHAUSTED, 1, rejected=True)
    assert (account.request_seconds.count, account.request_seconds.sum) == (2, 1100)
    assert account.rejected == 1


def test_reruns_add_up():
    account = VersionAccount("m", "1")
    account.record_reruns(3)
    account.record_reruns(1)
    assert account.reruns == 4


def test_request_that_failed_in_the_queue_does_not_count_as_time_of_successes():
    account = VersionAccount("m", "1")
    record(account, [1], total_ns=[100])
    account.record_failure(Outcome.EXPIRED, 1000)
    account.record_failure(Outcome.INVALID, 7, rejected=True)
    assert account.statistics().inference_stats.success == Duration(1, 100)
    assert account.request_seconds.sum == 1100


def test_compute_time_is_right_whatever_batches_were_mixed():
    account = VersionAccount("m", "1")
    for rows in ([1], [1, 1], [3], [], [1, 2, 3]):
        record(account, rows, batch_rows=max(sum(rows), 1))
    stats = account.statistics().inference_stats
    assert stats.compute_infer == Duration(7, 7 * 20)
    assert (stats.compute_input.ns, stats.compute_output.ns) == (7, 21)


def test_latest_traced_request_of_a_bucket_is_its_example():
    account = VersionAccount("m", "1")
    assert account.exemplars == {}
    account.exemplify(150_000, 11, 1, span_id=5)
    account.exemplify(200_000, 12, 2)
    account.exemplify(100_000, 13, 3)
    account.exemplify(10**12, 14, 4)
    assert {bucket: e.trace_id for bucket, e in account.exemplars.items()} == {1: 12, 0: 13, 16: 14}
    for bucket, exemplar in account.exemplars.items():
        account.request_seconds.observe(exemplar.latency_ns)
        assert account.request_seconds.bucket_counts[bucket] == 1
