import json
from dataclasses import replace

from bench.figures import Check, Figures
from bench.machine import Machine, parse_cpu_model
from bench.peers.server import Placement
from bench.report import all_ratios, to_json, to_markdown
from bench.results import Report, ScenarioResult, SubjectResult, Unloaded
from bench.scenario import IDENTITY, Scenario, Target


def one(requests_per_s, void=()):
    return Figures(
        requests=10,
        wall_s=1.0,
        requests_per_s=requests_per_s,
        p50_us=1500.0,
        p99_us=2500.0,
        cpu_us=40.0,
        pss_bytes=3 << 20,
        rss_bytes=5 << 20,
        void=void,
    )


PLAIN = Scenario("plain", IDENTITY, connections=2, streams=3)
JUDGED = Scenario(
    "judged",
    IDENTITY,
    connections=1,
    streams=3,
    lengths=(4, 9),
    targets=(Target("share_of_raw", 0.9, "at_least"),),
)
REPORT = Report(
    date="2026-11-23 09:00 UTC",
    machine=Machine("A CPU", 2, 8 << 30, "Linux 6", "3.11.7", 0.25),
    placement=Placement(model_cpu=1, load_cpu=0),
    generators=("native generator", "h2load 1"),
    rounds=2,
    seconds=8.0,
    scenarios=(
        ScenarioResult(
            PLAIN,
            "h2load -c 2 -m 3",
            (
                SubjectResult("crossgate", "ours", {"commit": "abc"}, (one(2000.0), one(2200.0))),
                SubjectResult("mlserver", "theirs", {}, (one(1000.0), one(1000.0, void=("3 of 9 failed",)))),
            ),
        ),
        ScenarioResult(
            JUDGED,
            "h2load -c 1 -m 3",
            (
                SubjectResult("crossgate", "ours", {}, (one(80.0), one(80.0))),
                SubjectResult("onnxruntime", "raw", {}, (one(100.0), one(100.0))),
                SubjectResult("triton-python", "", {}, failure="triton is not installed: run setup\nmore"),
            ),
        ),
    ),
    unloaded=(Unloaded("ready", "crossgate", "s", (1.5,), 3.0, {"first_answer_s": 1.6}),),
)


def test_ratios_come_before_tables_and_wanted_ones_first():
    text = to_markdown(REPORT)
    assert text.index("## Ratios") < text.index("## plain") < text.index("## Set-up")
    wanted = [bool(ratio.wanted) for ratio in all_ratios(REPORT)]
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[0]


def test_a_missed_target_is_called_missed():
    assert "| judged: throughput, crossgate / onnxruntime | 0.8 x | >= 0.9 | **missed** |" in to_markdown(
        REPORT
    )


def test_a_void_peer_shows_no_figures_but_its_reason():
    text = to_markdown(REPORT)
    assert "| mlserver | void | | | | | | |" in text
    assert "- mlserver is **void**, round 2: 3 of 9 failed" in text
    assert "| plain: crossgate / mlserver, requests/s | void or not measured |" in text


def test_a_peer_that_did_not_run_says_why_in_one_line():
    text = to_markdown(REPORT)
    assert "- triton-python did not run: triton is not installed: run setup\n" in text
    assert "| triton-python | not run |" in text


def test_figures_are_medians_in_the_units_of_the_heading():
    assert "| **crossgate** | 2,100 | 1.50 | 2.50 | not reported | 40 | 3 | 5 |" in to_markdown(REPORT)


def test_cpu_is_split_by_the_processes_that_use_any():
    rounds = (replace(one(2000.0), cpu_us_by_process=(25.0, 0.0, 15.0)),)
    subject = SubjectResult("mlserver", "", {}, rounds)
    report = replace(REPORT, scenarios=(ScenarioResult(PLAIN, "", (subject,)),))
    assert "| 40 (25 + 15) |" in to_markdown(report)


def test_a_disturbed_round_is_named():
    rounds = (one(2000.0), replace(one(900.0), others_share=0.31))
    report = replace(
        REPORT, scenarios=(ScenarioResult(PLAIN, "", (SubjectResult("mlserver", "", {}, rounds),)),)
    )
    assert "- mlserver was disturbed: other work took of the CPUs 31% in round 2" in to_markdown(report)


def test_two_load_generators_are_shown_side_by_side():
    check = Check("h2load", 1500.0, 1800.0, 3000.0, 41.0, 6.5)
    rounds = (replace(one(2000.0), check=check, generator_cpu_us=1.9),)
    report = replace(
        REPORT, scenarios=(ScenarioResult(PLAIN, "", (SubjectResult("mlserver", "", {}, rounds),)),)
    )
    text = to_markdown(report)
    assert "| plain, mlserver | 2,000 | 1,500 | 1.50 | 1.80 | 40 | 41 | 1.9 | 6.5 |" in text
    assert "Cross-check" not in to_markdown(REPORT)


def test_an_open_loop_says_so():
    scenario = replace(PLAIN, open_share=0.5)
    report = replace(REPORT, scenarios=(ScenarioResult(scenario, "", ()),))
    assert "open loop at 50% of each server's peak with 6 in flight" in to_markdown(report)


def test_machine_load_and_mix_are_named():
    text = to_markdown(REPORT)
    assert "A CPU, 2 cores, 8 GiB" in text
    assert "`h2load -c 2 -m 3`" in text
    assert "6 in flight, lengths 4, 9 in equal numbers" in text
    assert "6 in flight." in text


def test_json_keeps_every_round():
    document = json.loads(to_json(REPORT))
    rounds = document["scenarios"][0]["subjects"][1]["rounds"]
    assert [entry["void"] for entry in rounds] == [[], ["3 of 9 failed"]]
    assert document["ratios"][0]["met"] is False


def test_cpu_model_is_found_in_cpuinfo():
    assert (
        parse_cpu_model("processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\nflags\t: a\n") == "Fast CPU @ 2 GHz"
    )
