from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.accounts import Accounts
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.prometheus import Exposition

US = 1000


def scrape(accounts, **options):
    """{sample name: {labels: value}} of Triton's names"""
    found = {}
    for family in text_string_to_metric_families(Exposition(accounts, **options).render().decode()):
        for sample in family.samples:
            if sample.name.startswith("nv_"):  # the parser adds _total to counters
                found.setdefault(sample.name.removesuffix("_total"), {})[tuple(sample.labels.values())] = (
                    sample.value
                )
    return found


@pytest.fixture
def accounts():
    accounts = Accounts()
    account = accounts.open("digits", "3")
    account.record_batch(
        [2, 3], [10 * US, 20 * US], [100 * US, 200 * US], 1 * US, 50 * US, 2 * US, "full", "cpu", 1
    )
    account.record_batch([1], [30 * US], [300 * US], 1 * US, 60 * US, 2 * US, "full", "cuda:0", 1)
    return accounts


def test_triton_names_are_off_by_default(accounts):
    assert scrape(accounts) == {}


def test_durations_are_of_successful_requests_and_in_microseconds(accounts):
    accounts.open("digits", "3").record_failure(Outcome.EXPIRED, 10**9)
    found = scrape(accounts, triton_names=True)
    assert {name: values.get(("digits", "3")) for name, values in found.items() if "failure" not in name} == {
        "nv_inference_request_success": 3,
        "nv_inference_count": 6,
        "nv_inference_exec_count": 2,
        "nv_inference_request_duration_us": 600,
        "nv_inference_queue_duration_us": 60,
        "nv_inference_compute_input_duration_us": 3,
        "nv_inference_compute_infer_duration_us": 160,
        "nv_inference_compute_output_duration_us": 6,
    }


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.EXHAUSTED, "REJECTED"),
        (Outcome.EXPIRED, "REJECTED"),
        (Outcome.CANCELLED, "CANCELED"),
        (Outcome.FAILED, "BACKEND"),
        (Outcome.BUG, "BACKEND"),
        (Outcome.INVALID, "OTHER"),
        (Outcome.DENIED, "OTHER"),
    ],
)
def test_failures_have_a_reason(accounts, outcome, reason):
    accounts.open("digits", "3").record_failure(outcome, 1)
    found = scrape(accounts, triton_names=True)["nv_inference_request_failure"]
    assert {labels[2]: value for labels, value in found.items()} == dict.fromkeys(
        ("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0
    ) | {reason: 1}


def test_names_that_do_not_exist_have_no_series(accounts):
    accounts.find("made-up", "1").record_failure(Outcome.NOT_FOUND, 1)
    accounts.find("digits", "9").record_failure(Outcome.NOT_FOUND, 1)
    found = scrape(accounts, triton_names=True)
    assert {labels[:2] for values in found.values() for labels in values} == {("digits", "3")}
