from dataclasses import replace

import pytest

from bench.load import Loaded
from bench.peers.server import Counts
from bench.validity import Evidence, SampleReport, shortened, void_reasons

LOADED = Loaded(sent=100, wall_s=1.0, requests_per_s=100.0, p50_us=1.0, p99_us=2.0, cpu_us=3.0)
GOOD = Evidence(
    loaded=LOADED,
    samples=SampleReport(sent=7, wrong=()),
    before=Counts(requests=40, batches=9, failures=2),
    after=Counts(requests=147, batches=20, failures=2),
)


def test_a_flawless_round_counts():
    assert void_reasons(GOOD) == []


def test_a_server_without_counts_can_still_be_valid():
    assert void_reasons(replace(GOOD, before=None, after=None)) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loaded": replace(LOADED, wrong=("3 UNAVAILABLE",))}, "3 UNAVAILABLE"),
        ({"samples": SampleReport(sent=7, wrong=("a sampled answer is off by 1",))}, "off by 1"),
        ({"samples": SampleReport(sent=0, wrong=()), "after": Counts(140, 20, 2)}, "no sampled answer"),
        ({"after": Counts(146, 20, 2)}, "the server counted 106 requests, 107 were sent"),
        ({"after": Counts(148, 20, 2)}, "the server counted 108 requests, 107 were sent"),
        ({"after": Counts(147, 20, 5)}, "the server counted 3 failures"),
    ],
)
def test_any_flaw_voids_the_round(change, reason):
    reasons = void_reasons(replace(GOOD, **change))
    assert len(reasons) == 1
    assert reason in reasons[0]


@pytest.mark.parametrize(
    ("reasons", "kept"),
    [
        ([], ()),
        (["a", "b"], ("a", "b")),
        (["a", "a", "a"], ("a", "and 2 more")),
        (["a", "b", "c", "d", "e", "f"], ("a", "b", "c", "d", "and 2 more")),
    ],
)
def test_a_long_list_of_reasons_is_cut_and_says_so(reasons, kept):
    assert shortened(reasons) == kept
