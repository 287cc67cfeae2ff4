from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.accounts import Accounts
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.prometheus import Exposition
from gateway.telemetry.series import (
    CONFIG_REVISION,
    MODEL_LOAD_SECONDS,
    QUEUE_DEPTH,
    WORKER_RESTARTS,
    Sample,
)

MS = 1_000_000


def scrape(exposition):
    """{(sample name, labels): value}, and the families' types"""
    families = list(text_string_to_metric_families(exposition.render().decode()))
    assert len({family.name for family in families}) == len(families), "a family is exposed twice"
    samples = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples, {family.name: family.type for family in families}


def value(samples, name, **labels):
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def accounts():
    accounts = Accounts()
    account = accounts.open("digits", "3")
    account.record_batch([2, 3], [1 * MS, 3 * MS], [7 * MS, 9 * MS], 1, 4 * MS, 1, "full", "cuda:0", 1)
    account.record_batch([1], [MS], [6 * MS], 1, 2 * MS, 1, "idle", "cpu", 2)
    account.record_failure(Outcome.EXPIRED, 2_000 * MS)
    account.record_failure(Outcome.EXHAUSTED, 1000, rejected=True)
    account.record_reruns(2)
    accounts.find("made-up").record_failure(Outcome.NOT_FOUND, 10, rejected=True)
    return accounts


def test_counters_read_back(accounts):
    samples, types = scrape(Exposition(accounts))
    of = {"model": "digits", "version": "3"}
    assert value(samples, "crossgate_requests_total", **of, outcome="ok") == 3
    assert value(samples, "crossgate_requests_total", **of, outcome="expired") == 1
    assert value(samples, "crossgate_requests_total", **of, outcome="bug") == 0
    assert value(samples, "crossgate_requests_total", model="", version="", outcome="not_found") == 1
    assert value(samples, "crossgate_rows_total", **of) == 6
    assert value(samples, "crossgate_reruns_total", **of) == 2
    assert value(samples, "crossgate_rejected_total", **of) == 1
    assert value(samples, "crossgate_batches_total", **of, device="cuda:0", close_reason="full") == 1
    assert value(samples, "crossgate_batches_total", **of, device="cpu", close_reason="idle") == 1
    assert types["crossgate_requests"] == "counter"
    assert types["crossgate_batch_size"] == "histogram"


def test_histograms_are_cumulative_and_in_seconds(accounts):
    samples, types = scrape(Exposition(accounts))
    of = {"model": "digits", "version": "3"}
    name = "crossgate_request_seconds"
    assert types[name] == "histogram"
    assert [
        value(samples, f"{name}_bucket", **of, le=le) for le in ("0.005", "0.01", "1.0", "2.5", "+Inf")
    ] == [
        *(0, 3, 3),
        *(4, 4),
    ]
    assert value(samples, f"{name}_count", **of) == 4
    assert value(samples, f"{name}_sum", **of) == pytest.approx(2.022)
    assert value(samples, "crossgate_queue_seconds_bucket", **of, le="0.001") == 2
    assert value(samples, "crossgate_run_seconds_sum", **of, device="cuda:0") == pytest.approx(0.004)
    assert value(samples, "crossgate_batch_size_bucket", **of, device="cuda:0", le="4.0") == 0
    assert value(samples, "crossgate_batch_size_bucket", **of, device="cuda:0", le="8.0") == 1
    assert value(samples, "crossgate_batch_size_sum", **of, device="cuda:0") == 5


def test_readings_are_read_at_each_scrape(accounts):
    depth = {"digits": 4}
    accounts.read_at_scrape(QUEUE_DEPTH, lambda: [Sample((model,), n) for model, n in depth.items()])
    accounts.read_at_scrape(WORKER_RESTARTS, lambda: [Sample(("w0",), 2)])
    accounts.read_at_scrape(CONFIG_REVISION, lambda: [Sample(("seen",), 2**53), Sample(("applied",), 41)])
    accounts.read_at_scrape(MODEL_LOAD_SECONDS, lambda: [Sample(("digits", "3"), 1.25)])
    exposition = Exposition(accounts)
    samples, types = scrape(exposition)
    assert value(samples, "crossgate_queue_depth", model="digits") == 4
    assert value(samples, "crossgate_worker_restarts_total", worker="w0") == 2
    assert value(samples, "crossgate_config_revision", state="seen") == 2**53
    assert value(samples, "crossgate_model_load_seconds", model="digits", version="3") == 1.25
    assert (types["crossgate_queue_depth"], types["crossgate_worker_restarts"]) == ("gauge", "counter")
    depth["digits"] = 5
    assert value(scrape(exposition)[0], "crossgate_queue_depth", model="digits") == 5


def test_failing_reading_costs_its_own_series_only(accounts):
    def fail():
        raise RuntimeError("gone")

    accounts.read_at_scrape(QUEUE_DEPTH, fail)
    accounts.read_at_scrape(WORKER_RESTARTS, lambda: [Sample(("one", "too many"), 1)])
    accounts.read_at_scrape(CONFIG_REVISION, lambda: [Sample(("seen",), 1)])
    samples, types = scrape(Exposition(accounts))
    assert "crossgate_queue_depth" not in types
    assert value(samples, "crossgate_scrape_errors_total", series="crossgate_queue_depth") == 1
    assert value(samples, "crossgate_scrape_errors_total", series="crossgate_worker_restarts_total") == 1
    assert value(samples, "crossgate_config_revision", state="seen") == 1


def test_label_values_are_escaped():
    accounts = Accounts()
    odd = 'a"b\\c\nd'
    accounts.open("m", "1").record_batch([1], [1], [1], 1, 1, 1, odd, odd, 1)
    samples, _ = scrape(Exposition(accounts))
    name = "crossgate_batches_total"
    assert value(samples, name, model="m", version="1", device=odd, close_reason=odd) == 1


def test_configuration_and_process_are_exposed():
    accounts = Accounts()
    accounts.config_apply_seconds.observe(30 * MS)
    samples, _ = scrape(Exposition(accounts))
    assert value(samples, "crossgate_config_apply_seconds_bucket", le="0.025") == 0
    assert value(samples, "crossgate_config_apply_seconds_bucket", le="0.05") == 1
    assert value(samples, "crossgate_config_apply_seconds_sum") == pytest.approx(0.03)
    assert value(samples, "process_resident_memory_bytes") > 0
    assert Exposition.content_type.startswith("text/plain; version=0.0.4")


@pytest.mark.slow
def test_thousand_versions_are_rendered_in_short_steps():
    accounts = Accounts()
    for i in range(1000):
        accounts.open(f"m{i}", "1").record_batch([1], [MS], [MS], 1, MS, 1, "full", "cpu", 1)
    durations = []
    parts = []
    steps = Exposition(accounts).steps()
    while True:
        start = time.thread_time()
        part = next(steps, None)
        durations.append(time.thread_time() - start)
        if part is None:
            break
        parts.append(part)
    assert b"".join(parts).count(b"\n") > 60_000
    assert sorted(durations)[len(durations) // 2] < 0.01  # about 0.5 ms; a whole scrape is about 100 ms
    assert sum(durations) < 2.0
