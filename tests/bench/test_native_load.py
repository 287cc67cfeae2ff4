import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from load_reports import report

from bench.native_load import flaws, kept_on

SCHEDULE = {"late_starts": 0, "late_start_max_us": 0.0, "held_back": 0, "never_started": 0}


def test_a_report_without_flaws_counts():
    assert flaws(report(), [85]) == []
    assert flaws(report(), None) == [], "before the wanted length is known"
    assert flaws(report(schedule=SCHEDULE), [85]) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {
                "outcomes": {"OK": 97, "UNAVAILABLE": 3},
                "unexpected": 3,
                "errors": [{"outcome": "UNAVAILABLE", "message": "draining", "count": 3}],
            },
            "97 OK, 3 UNAVAILABLE (UNAVAILABLE: draining)",
        ),
        ({"warm_up": {"unexpected": 1}}, "100 OK"),
        (
            {"connections": {"max_streams": None, "lost": 2, "last_failure": "reset"}},
            "2 connections were lost",
        ),
        ({"schedule": {**SCHEDULE, "never_started": 4}}, "4 requests were due"),
        (
            {
                "bodies": [
                    {
                        "size_bytes": 5,
                        "malformed": False,
                        "ok": 9,
                        "answer_bytes_min": 80,
                        "answer_bytes_max": 81,
                    }
                ]
            },
            "80 to 81 bytes instead of 80",
        ),
        (
            {
                "bodies": [
                    {
                        "size_bytes": 5,
                        "malformed": False,
                        "ok": 9,
                        "answer_bytes_min": 79,
                        "answer_bytes_max": 79,
                    }
                ]
            },
            "79 to 79 bytes instead of 80",
        ),
    ],
)
def test_any_flaw_of_a_report_is_named(change, reason):
    (flaw,) = flaws(report(**change), [85])
    assert reason in flaw


def test_the_load_is_kept_on_its_cpu_and_nothing_else_is():
    before = os.sched_getaffinity(0)
    cpu = max(before)
    with kept_on(cpu):
        assert os.sched_getaffinity(0) == {cpu}
    assert os.sched_getaffinity(0) == before
