import pytest

from bench.peers.raw_onnxruntime import Best, Timing, batch_sizes, combine


@pytest.mark.parametrize(
    ("limit", "sizes"), [(1, [1]), (2, [1, 2]), (16, [1, 2, 4, 8, 16]), (36, [1, 2, 4, 8, 16, 32, 36])]
)
def test_batch_sizes_double_up_to_the_limit(limit, sizes):
    assert batch_sizes(limit) == sizes


def test_one_length_gives_its_own_rate():
    figures = combine(
        [Timing(items=400, wall_s=2.0, cpu_s=1.0, p50_us=3.0, p99_us=4.0)], [Best(8, 0.0)], 1, 2
    )
    assert figures.requests_per_s == pytest.approx(200.0)
    assert figures.cpu_us == pytest.approx(2500.0)
    assert figures.mean_batch == 8


def test_mixed_lengths_are_weighted_by_equal_numbers_of_requests():
    """10 ms and 30 ms an item: one of each takes 40 ms, so 50 items a second, however long each was timed."""
    short = Timing(items=1000, wall_s=10.0, cpu_s=10.0, p50_us=80.0, p99_us=90.0)
    long = Timing(items=10, wall_s=0.3, cpu_s=0.3, p50_us=60.0, p99_us=70.0)
    figures = combine([short, long], [Best(16, 0.0), Best(2, 0.0)], 1, 2)
    assert figures.requests_per_s == pytest.approx(50.0)
    assert figures.cpu_us == pytest.approx(20_000.0)
    assert (figures.p50_us, figures.p99_us) == (80.0, 90.0)
