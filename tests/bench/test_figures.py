import pytest

from bench.figures import Figures, median


def figures(requests_per_s=100.0, mean_batch=None, void=(), processes=()):
    return Figures(
        requests=10,
        wall_s=1.0,
        requests_per_s=requests_per_s,
        p50_us=5.0,
        p99_us=9.0,
        cpu_us=1e6 / requests_per_s,
        pss_bytes=1,
        rss_bytes=2,
        mean_batch=mean_batch,
        void=void,
        cpu_us_by_process=processes,
    )


@pytest.mark.parametrize(
    ("rates", "middle"), [([7], 7), ([1, 100], 50.5), ([3, 1, 2], 2), ([10, 1000, 11, 12, 9], 11)]
)
def test_median_of_the_rounds(rates, middle):
    found = median([figures(requests_per_s=rate) for rate in rates])
    assert found is not None
    assert found.requests_per_s == middle


def test_each_figure_has_its_own_median():
    found = median([figures(1.0, mean_batch=30), figures(2.0, mean_batch=10), figures(4.0, mean_batch=20)])
    assert found is not None
    assert (found.requests_per_s, found.cpu_us, found.mean_batch) == (2.0, 5e5, 20)


@pytest.mark.parametrize("rounds", [[], [figures(), figures(void=("a failure",)), figures()]])
def test_one_void_round_or_none_at_all_leaves_no_figures(rounds):
    assert median(rounds) is None


def test_mean_batch_is_unknown_unless_every_round_knows_it():
    found = median([figures(mean_batch=8), figures()])
    assert found is not None
    assert found.mean_batch is None


@pytest.mark.parametrize(
    ("rounds", "middle"),
    [
        ([(10.0, 2.0), (30.0, 1.0), (20.0, 3.0)], (20.0, 2.0)),
        ([(10.0, 2.0), (30.0,)], ()),
        ([(), ()], ()),
    ],
)
def test_cpu_by_process_is_kept_while_the_processes_are_the_same(rounds, middle):
    found = median([figures(processes=processes) for processes in rounds])
    assert found is not None
    assert found.cpu_us_by_process == middle
