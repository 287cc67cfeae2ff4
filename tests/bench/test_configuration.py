import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from load_reports import report

from bench import configuration_report
from bench.configuration_changes import Change, Quantiles, flaws, latencies_ms, share_deviation
from bench.configuration_latency import Round, apply_quantiles, failed_requests, outcome, p99_ratio
from bench.configuration_load import Loaded
from bench.configuration_outcome import Figure, Outcome
from bench.configuration_place import Versions, answering_version
from bench.configuration_prober import Probe
from bench.machine import Machine
from gateway.config.validation import validate
from protos import inference_pb2 as pb

MS = 1_000_000
MACHINE = Machine("A CPU", 2, 8 << 30, "Linux 6", "3.11.7", 0.25)
SECOND = {"requests_per_s": 100.0, "p50_us": 5.0, "p99_us": 8.0, "unexpected": 0, "in_flight": 1}


def change(revision, at_ms, **split):
    weights = {name.removeprefix("v"): weight for name, weight in split.items()} or {"1": 1}
    return Change("weights", revision, at_ms * MS, weights)


def probe(at_ms, revision, version="1", **others):
    return Probe((at_ms - 1) * MS, at_ms * MS, revision, version, **{"answered_by": version, **others})


def loaded(p99_us=8.0, **changes):
    latency = {"count": 1, "mean": 5.0, "p50": 5.0, "p90": 6.0, "p95": 7.0, "p99.9": 9.0, "max": 9.0}
    series = [{"second": second, **SECOND} for second in (-1, 0, 1)]
    return Loaded(report(latency_us={**latency, "p99": p99_us}, series=series, **changes), window_ns=0)


# -- what probes say ---


def test_a_change_acts_with_the_first_answer_of_its_revision():
    probes = [probe(5, 1), probe(12, 2), probe(13, 2)]
    assert latencies_ms([change(2, 10)], probes) == [2.0]


def test_a_change_that_a_later_one_overtook_acts_with_that():
    assert latencies_ms([change(2, 10), change(3, 11)], [probe(5, 1), probe(12, 3)]) == [2.0, 1.0]


def test_a_later_revision_that_answered_earlier_counts():
    assert latencies_ms([change(2, 10)], [probe(12, 3), probe(15, 2)]) == [2.0]


def test_a_gateway_may_be_faster_than_the_answer_to_the_commit():
    assert latencies_ms([change(2, 10)], [probe(9, 2)]) == [-1.0]


def test_a_change_that_nobody_saw_has_no_latency():
    assert latencies_ms([change(2, 10)], [probe(12, 1), probe(14, 2, error="UNAVAILABLE: gone")]) == [None]


@pytest.mark.parametrize(
    ("probes", "wanted"),
    [
        ([probe(1, 1), probe(2, 2, "2")], ""),
        ([probe(1, 2, "2"), probe(2, 1)], "revision 1 answered after 2"),
        ([probe(1, 7)], "revision 7 answered, which nobody has committed"),
        ([probe(1, 2, "1")], "version 1 answered at revision 2"),
        ([probe(1, 1, answered_by="2")], "an answer of version 1 has values of 2"),
        ([probe(1, 1, error="UNAVAILABLE: gone")], "a probe failed: UNAVAILABLE: gone"),
    ],
    ids=["nothing", "backwards", "nobody's", "another version", "another's values", "failed"],
)
def test_what_no_answer_may_show(probes, wanted):
    found = flaws([change(1, 0, v1=1), change(2, 1, v1=0, v2=1)], probes)
    assert found == ([wanted] if wanted else [])


def test_shares_that_fit_the_weights_deviate_little_and_others_much():
    changes = [change(1, 0, v1=1, v2=3)]
    fitting = [probe(at, 1, "1" if at % 4 == 0 else "2") for at in range(400)]
    assert share_deviation(changes, fitting, "2") == 0.0
    assert share_deviation(changes, [probe(at, 1, "2") for at in range(400)], "2") > 5
    assert share_deviation(changes, [probe(at, 1, "1") for at in range(400)], "2") < -5


def test_shares_without_chance_deviate_by_nothing():
    assert share_deviation([change(1, 0, v1=1, v2=0)], [probe(1, 1)], "2") == 0.0


def test_quantiles_are_values_that_were_measured():
    assert Quantiles.of([]) is None
    assert Quantiles.of([3.0]) == Quantiles(1, 3.0, 3.0, 3.0)
    assert Quantiles.of([float(n) for n in range(1, 201)]) == Quantiles(200, 100.0, 198.0, 200.0)


# -- the latency of changes ---


def rounds(disturbed_p99_us=8.8, **changes):
    seen = [probe(at, 2) for at in range(21, 30)]
    return [
        Round(False, loaded(8.0), [probe(5, 1)], ()),
        Round(True, loaded(disturbed_p99_us, **changes), seen, [change(2, 20)]),
    ]


def test_the_ratio_is_that_of_neighbours_whichever_was_first():
    calm, disturbed = rounds()
    assert p99_ratio([calm, disturbed]) == pytest.approx(1.1)
    assert p99_ratio([disturbed, calm, calm, disturbed]) == pytest.approx(1.1)
    assert p99_ratio([]) is None


def test_a_good_run_counts_and_meets_what_is_wanted():
    found = outcome([change(1, 0), change(2, 20)], rounds(), None, 1000.0, 0.0)
    assert found.reasons == ()
    assert not found.failed
    assert {figure.label: figure.value for figure in found.figures}["commit to answer, p99"] == 1.0


def test_a_failed_request_voids_a_run():
    bad = rounds(outcomes={"OK": 97, "UNAVAILABLE": 3})
    found = outcome([change(1, 0), change(2, 20)], bad, None, 1000.0, 0.0)
    assert failed_requests(bad) == 3
    assert "UNAVAILABLE" in found.reasons[0]
    assert found.failed


def test_a_change_that_was_never_seen_voids_a_run():
    calm, disturbed = rounds()
    unseen = dataclasses.replace(disturbed, changes=[change(2, 20), change(3, 25)])
    found = outcome([change(1, 0), change(2, 20), change(3, 25)], [calm, unseen], None, 1000.0, 0.0)
    assert found.reasons == ("1 of 2 changes were never seen",)


def test_a_disturbed_machine_voids_a_run():
    found = outcome([change(1, 0), change(2, 20)], rounds(), None, 1000.0, 0.2)
    assert found.reasons == ("disturbed: other work took 20% of the CPUs",)


def exposition(*counts):
    bounds = ("0.001", "0.01", "+Inf")
    lines = [
        f'crossgate_config_apply_seconds_bucket{{le="{bound}"}} {count}'
        for bound, count in zip(bounds, counts, strict=True)
    ]
    return "\n".join(["# TYPE crossgate_config_apply_seconds histogram", *lines, ""])


def test_the_gateways_own_histogram_counts_only_what_came_between():
    assert apply_quantiles(exposition(0, 5, 5), exposition(90, 105, 105)) == Quantiles(100, 0.001, 0.01, 0.01)
    assert apply_quantiles(exposition(0, 5, 5), exposition(0, 5, 5)) is None


# -- reports ---


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", 1.0, "ms", 1.0), True),
        (Figure("a", 1.1, "ms", 1.0), False),
        (Figure("a", None, "ms", 1.0), False),
        (Figure("a", 1.0), None),
    ],
)
def test_a_figure_that_is_unknown_is_missed_where_something_is_wanted(figure, met):
    assert figure.met is met


def test_a_report_says_void_instead_of_met(tmp_path):
    good = Outcome("good", "so", (Figure("took", 1.0, "s", 2.0), Figure("seen", 3.0)))
    void = Outcome("bad", "so", (Figure("took", 1.0, "s", 2.0),), ("a request failed",))
    configuration_report.write([good, void], "today", MACHINE, tmp_path)
    text = (tmp_path / "configuration.md").read_text()
    assert "| good | took | 1 s | <= 2 s | met |" in text
    assert "| bad | took | 1 s | <= 2 s | void |" in text
    assert "- VOID: a request failed" in text
    assert json.loads((tmp_path / "good.json").read_text())["counts"] is True
    assert json.loads((tmp_path / "bad.json").read_text())["counts"] is False
    assert "VOID: a request failed" in configuration_report.verdict(void)
    assert void.failed
    assert not good.failed


def test_changes_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    found = outcome([change(1, 0), change(2, 20)], rounds(), None, 1000.0, 0.0)
    configuration_report.write([found], "today", MACHINE, tmp_path)
    assert (tmp_path / "change-latency.png").read_bytes().startswith(b"\x89PNG")


def test_what_did_not_run_is_told_and_not_drawn(tmp_path):
    configuration_report.write([Outcome("change-latency", "", (), ("no etcd",))], "today", MACHINE, tmp_path)
    assert "no etcd" in (tmp_path / "configuration.md").read_text()
    assert not (tmp_path / "change-latency.png").exists()


# -- what is measured ---


def test_documents_are_valid(tmp_path):
    pytest.importorskip("onnx")
    document = Versions(tmp_path).document("times", (1, 2), {1: 1, 2: 0}, batching={"batchable": True})
    assert set(validate(document, model="times").versions) == {"1", "2"}


def answer(*values):
    import numpy as np

    return pb.ModelInferResponse(raw_output_contents=[np.array(values, np.float32).tobytes()])


def test_an_answer_shows_its_version():
    assert answering_version(answer(*[3.0] * 16)) == "3"
    assert answering_version(answer(*[3.0] * 15, 4.0)) == "none"
    assert answering_version(answer(3.0)) == "none"
