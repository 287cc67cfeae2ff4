"""The text of OpenMetrics as prometheus_client's parser reads it."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.telemetry import series, triton
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.prometheus import OPENMETRICS, Exposition
from gateway.telemetry.series import CONFIG_REJECTED, QUEUE_DEPTH, Sample, Series

MS = 1_000_000
TRACE_ID = 0xABCDEF


@pytest.fixture
def accounts():
    accounts = Accounts()
    account = accounts.open("digits", "3")
    account.record_batch([2, 3], [MS, 3 * MS], [7 * MS, 900 * MS], 1, 4 * MS, 1, "full", "cuda:0", 1)
    account.record_failure(Outcome.EXPIRED, 2_000 * MS)
    return accounts


def text(accounts, **options):
    return b"".join(Exposition(accounts, **options).alternatives[OPENMETRICS]()).decode()


def read(accounts, **options):
    """{family name: family}"""
    families = list(text_string_to_metric_families(text(accounts, **options)))
    found = {family.name: family for family in families}
    assert len(found) == len(families), "a family is exposed twice"
    return found


def buckets(family, **labels):
    """{bound: (count, exemplar)} of one histogram"""
    return {
        sample.labels["le"]: (sample.value, sample.exemplar)
        for sample in family.samples
        if sample.name.endswith("_bucket") and labels.items() <= sample.labels.items()
    }


def test_families_have_their_types_and_units_and_the_text_its_end(accounts):
    found = read(accounts)
    assert text(accounts).endswith("\n# EOF\n")
    assert (found["crossgate_requests"].type, found["crossgate_requests"].unit) == ("counter", "")
    assert (found["crossgate_request_seconds"].type, found["crossgate_request_seconds"].unit) == (
        "histogram",
        "seconds",
    )
    assert found["process_resident_memory_bytes"].type == "gauge"
    assert found["process_cpu_seconds"].type == "counter"
    assert {s.name for s in found["crossgate_requests"].samples} == {"crossgate_requests_total"}


def test_request_that_was_traced_is_the_example_of_its_bucket(accounts):
    account = accounts.open("digits", "3")
    account.exemplify(7 * MS, 1, 1_700_000_000_123)
    account.exemplify(8 * MS, TRACE_ID, 1_700_000_001_500)
    account.exemplify(60_000 * MS, 2, 1_700_000_002_000)
    found = buckets(read(accounts)["crossgate_request_seconds"], model="digits")
    assert {le for le, (_, exemplar) in found.items() if exemplar} == {"0.01", "+Inf"}
    exemplar = found["0.01"][1]
    assert exemplar.labels == {"trace_id": f"{TRACE_ID:032x}"}
    assert (exemplar.value, float(exemplar.timestamp)) == (0.008, 1_700_000_001.5)
    assert found["0.01"][0] == 1


def test_exemplars_are_left_out_of_prometheus_text(accounts):
    accounts.open("digits", "3").exemplify(7 * MS, 1, 1_700_000_000_123)
    assert "trace_id" not in Exposition(accounts).render().decode()


def test_both_formats_have_the_same_values_and_labels(accounts):
    accounts.read_at_scrape(QUEUE_DEPTH, lambda: [Sample(('a"b\\c\nd',), 4)])
    accounts.read_at_scrape(CONFIG_REJECTED, lambda: [Sample((), 2)])

    def own(lines):
        return sorted(line for line in lines if line.startswith("crossgate_"))

    assert own(text(accounts).splitlines()) == own(Exposition(accounts).render().decode().splitlines())
    assert read(accounts)["crossgate_queue_depth"].samples[0].labels == {"model": 'a"b\\c\nd'}


def test_every_series_there_is_can_be_read_together():
    accounts = Accounts()
    for module in (series, triton):
        for each in vars(module).values():
            if isinstance(each, Series) and each.kind != "histogram" and each is not series.SCRAPE_ERRORS:
                accounts.read_at_scrape(each, lambda each=each: [Sample(("x",) * len(each.labels), 1)])
    found = read(accounts, triton_names=True)
    assert accounts.readings.keys() <= {sample.name for family in found.values() for sample in family.samples}
    assert (found["crossgate_connections"].type, found["crossgate_connections_total"].type) == (
        "gauge",
        "unknown",
    )


def test_names_of_another_product_stay_as_they_are(accounts):
    found = read(accounts, triton_names=True)
    family = found["nv_inference_request_success"]
    assert (family.type, [s.name for s in family.samples]) == ("unknown", ["nv_inference_request_success"])


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("a_seconds", "seconds"),
        ("a_seconds_total", "seconds"),
        ("a_bytes", "bytes"),
        ("a_ratio", "ratio"),
        ("a_total", ""),
        ("seconds_of_a", ""),
    ],
)
def test_the_unit_is_what_the_name_ends_in(name, unit):
    assert Series(name, "", "gauge", ()).unit == unit
