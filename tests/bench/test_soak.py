import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from load_reports import report

from bench import soak_report
from bench.machine import Machine
from bench.samples import Sample, Work
from bench.scenario import MLP, Scenario
from bench.soak import Resident, Soak, SoakResult, growth, resident_bytes, wrong_answers
from protos import inference_pb2 as pb

MACHINE = Machine("A CPU", 2, 8 << 30, "Linux 6", "3.11.7", 0.25)
FLAT = tuple(Resident(float(second), 100 << 20, 300 << 20) for second in range(600))


def soaked(resident=FLAT, wrong=(), **changes):
    return SoakResult(
        "crossgate:native", "ours", Soak(600.0), 1000.0, 700.0, report(**changes), tuple(resident), wrong
    )


def sizes(*steps, seconds=600):
    """Readings once a second; the size changes at each (second, size)."""
    readings, current = [], 0
    for second in range(seconds):
        current = dict(steps).get(second, current)
        readings.append((float(second), current))
    return readings


@pytest.mark.parametrize(
    ("readings", "seconds", "wanted"),
    [
        (sizes((0, 100)), 600, 0.0),
        (sizes((0, 50), (30, 100)), 600, 0.0),  # before it settled
        (sizes((0, 100), (300, 110)), 600, 0.1),
        (sizes((0, 100), (300, 200), (330, 100)), 600, 0.0),  # a passing peak
        (sizes((0, 100), (300, 90)), 600, -0.1),
        (sizes((0, 50), (9, 100), (24, 103), seconds=40), 40, 0.03),  # a short run settles in its quarter
        (sizes((0, 100), seconds=100), 600, None),
        ([], 600, None),
    ],
)
def test_growth_is_what_is_added_once_it_has_settled(readings, seconds, wanted):
    assert growth(readings, seconds) == (None if wanted is None else pytest.approx(wanted))


def test_a_flat_soak_without_flaws_is_met():
    assert soaked().met
    assert soak_report.verdict(soaked()).startswith("met: 0 unexpected")


@pytest.mark.parametrize(
    "flaw",
    [
        {"unexpected": 1},
        {"warm_up": {"unexpected": 1}},
        {"wrong": ("an answer is off",)},
        {"schedule": {"late_starts": 0, "late_start_max_us": 0.0, "held_back": 0, "never_started": 1}},
        {"resident": FLAT[:30]},
        {"resident": [Resident(r.at_s, r.server_bytes + int(r.at_s) * 10_000, r.all_bytes) for r in FLAT]},
        {"resident": [Resident(r.at_s, r.server_bytes, r.all_bytes + int(r.at_s) * 30_000) for r in FLAT]},
    ],
)
def test_any_flaw_misses_it(flaw):
    assert not soaked(**flaw).met


@pytest.mark.slow
def test_memory_tail_and_rate_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    soak_report.draw(soaked(), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_shows_the_verdict_the_outcomes_and_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(soak_report, "find_spec", lambda name: None)  # no picture
    result = soaked(
        unexpected=2,
        outcomes={"OK": 98, "INTERNAL": 2},
        errors=[{"outcome": "INTERNAL", "message": "broken", "count": 2}],
        series=[
            {
                "second": 0,
                "requests_per_s": 9.0,
                "p50_us": None,
                "p99_us": None,
                "unexpected": 2,
                "in_flight": 1,
            }
        ],
    )
    soak_report.write(result, "2026-11-23", MACHINE, tmp_path)
    text = (tmp_path / "soak.md").read_text()
    assert "MISSED: 2 unexpected outcomes" in text
    assert "| INTERNAL | 2 |" in text
    assert "- 2 x INTERNAL: broken" in text
    assert "| resident MiB | 100.0 to 100.0; once settled +0.0% (wanted <= 2%) |" in text
    document = json.loads((tmp_path / "soak.json").read_text())
    assert document["met"] is False
    assert len(document["resident"]) == 600
    assert document["load"]["outcomes"] == {"OK": 98, "INTERNAL": 2}


def test_answers_are_compared_with_those_of_their_own_sample():
    samples = tuple(Sample(b"", {"OUTPUT0": np.full((1, 10), value, np.float32)}) for value in (0.25, 0.5))
    work = Work(Scenario("s", MLP, 1, 1), Path(), (), samples)

    def answer(value):
        message = pb.ModelInferResponse()
        message.outputs.add(name="OUTPUT0", datatype="FP32", shape=[1, 10])
        message.raw_output_contents.append(np.full((1, 10), value, np.float32).tobytes())
        return message.SerializeToString()

    assert wrong_answers(work, [0, 1, 0], [answer(0.25), answer(0.5), answer(0.25)]) == []
    (wrong,) = wrong_answers(work, [1], [answer(0.25)])
    assert "sample 1" in wrong


def test_a_process_that_has_ended_holds_nothing():
    assert resident_bytes(os.getpid()) > 1 << 20
    assert resident_bytes(2**22 + 1) == 0
