from __future__ import annotations

from gateway.telemetry.token_bucket import TokenBucket

S = 1_000_000_000


def taken(bucket, now_ns, tries=100):
    return sum(bucket.take(now_ns) for _ in range(tries))


def test_a_burst_then_as_many_as_time_brings():
    bucket = TokenBucket(2.0, 5.0)
    assert taken(bucket, S) == 5
    assert taken(bucket, 2 * S) == 2
    assert taken(bucket, 2 * S + S // 4) == 0
    assert taken(bucket, 2 * S + S // 2) == 1


def test_never_more_than_a_burst_however_long_nothing_was_taken():
    bucket = TokenBucket(2.0, 5.0)
    assert taken(bucket, 1000 * S) == 5


def test_asking_takes_nothing():
    bucket = TokenBucket(2.0, 1.0)
    assert not bucket.is_empty(S)
    assert not bucket.is_empty(S)
    assert bucket.take(S)
    assert bucket.is_empty(S)
    assert not bucket.is_empty(2 * S)
