from dataclasses import replace

import pytest

from bench.load import Summary
from bench.peers.server import Counts
from bench.validity import Evidence, SampleReport, shortened, void_reasons

SUMMARY = Summary(
    requests=100, done=100, succeeded=100, failed=0, errored=0, timed_out=0, status_2xx=100, data_bytes=8500
)
GOOD = Evidence(
    summaries=[SUMMARY],
    answer_bytes=[85],
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
        ({"summaries": [replace(SUMMARY, succeeded=99, failed=1)]}, "99 of 100 succeeded, 1 failed"),
        ({"summaries": [replace(SUMMARY, done=99, data_bytes=99 * 85)]}, "h2load"),
        ({"summaries": [replace(SUMMARY, status_2xx=98)]}, "h2load"),
        ({"summaries": [replace(SUMMARY, data_bytes=8500 - 85)]}, "8415 bytes of answers instead of 8500"),
        ({"summaries": [replace(SUMMARY, data_bytes=8501)]}, "some answers are errors or of another length"),
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


def test_each_h2load_is_held_to_its_own_answer_length():
    evidence = replace(
        GOOD,
        summaries=[SUMMARY, replace(SUMMARY, data_bytes=100 * 30)],
        answer_bytes=[85, 30],
        after=Counts(requests=247, batches=20, failures=2),
    )
    assert void_reasons(evidence) == []
    assert len(void_reasons(replace(evidence, answer_bytes=[30, 85]))) == 2


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
