from dataclasses import replace

import pytest

from bench.h2load import HEADERS, H2load, Run, Summary, flaws, parse_log, parse_summary, wall_seconds
from bench.load import Job, LoadFailed
from bench.samples import Body

OUTPUT = """\
starting benchmark...
spawning thread #0: 4 total client(s). 2000 total requests
Application protocol: h2c
progress: 10% done
progress: 100% done

finished in 455.89ms, 4387.07 req/s, 702.49KB/s
requests: 2000 total, 2000 started, 1999 done, 1990 succeeded, 10 failed, 1 errored, 3 timeout
status codes: 1990 2xx, 0 3xx, 4 4xx, 5 5xx
traffic: 320.26KB (327942) total, 6.15KB (6300) headers (space savings 96.11%), 210.94KB (216000) data
                     min         max         mean         sd        +/- sd
time for request:      468us     20.89ms      7.16ms      2.27ms    82.95%
"""


def test_summary_takes_counts_and_exact_data_bytes():
    assert parse_summary(OUTPUT) == Summary(
        requests=2000,
        done=1999,
        succeeded=1990,
        failed=10,
        errored=1,
        timed_out=3,
        status_2xx=1990,
        data_bytes=216000,
    )


def test_small_traffic_is_printed_without_a_unit():
    text = OUTPUT.replace("210.94KB (216000) data", "84B (84) data")
    assert parse_summary(text).data_bytes == 84


@pytest.mark.parametrize("lost", ["requests: 2000", "status codes:", "traffic:"])
def test_output_without_a_whole_summary_is_a_failure(lost):
    with pytest.raises(LoadFailed, match="no summary"):
        parse_summary(OUTPUT.replace(lost, "nothing"))


def test_log_rows_become_columns():
    log = parse_log("1795425004199200\t200\t1659\n1795425004199203\t-1\t2219\n")
    assert log.start_us.tolist() == [1795425004199200, 1795425004199203]
    assert log.status.tolist() == [200, -1]
    assert log.duration_us.tolist() == [1659, 2219]


def test_empty_log_has_no_rows():
    assert parse_log("").duration_us.size == 0


def test_columns_that_later_releases_add_are_ignored():
    assert parse_log("10\t200\t30\t40\n").duration_us.tolist() == [30]


def test_wall_time_spans_all_h2loads():
    early = parse_log("1000000\t200\t500000\n1200000\t200\t100000\n")
    late = parse_log("1400000\t200\t1600000\n")
    assert wall_seconds([early, late]) == pytest.approx(2.0)


def test_command_names_everything_that_shapes_the_load(tmp_path):
    run = Run("127.0.0.1:9", tmp_path / "b", tmp_path / "l", requests=70, connections=3, streams=5, cpu=2)
    command = run.command()
    assert command[:3] == ["taskset", "-c", "2"]
    assert command[command.index("-n") + 1] == "70"
    assert command[command.index("-c", 3) + 1] == "3"
    assert command[command.index("-m") + 1] == "5"
    assert all(header in command for header in HEADERS)
    assert command[-1] == "http://127.0.0.1:9/inference.GRPCInferenceService/ModelInfer"


GOOD = Summary(
    requests=100, done=100, succeeded=100, failed=0, errored=0, timed_out=0, status_2xx=100, data_bytes=8500
)


def test_a_summary_without_flaws_counts():
    assert flaws(GOOD, 85) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"succeeded": 99, "failed": 1}, "99 of 100 succeeded, 1 failed"),
        ({"done": 99, "data_bytes": 99 * 85}, "h2load"),
        ({"status_2xx": 98}, "h2load"),
        ({"data_bytes": 8500 - 85}, "8415 bytes of answers instead of 8500"),
        ({"data_bytes": 8501}, "some answers are errors or of another length"),
    ],
)
def test_any_flaw_of_a_summary_is_named(change, reason):
    (flaw,) = flaws(replace(GOOD, **change), 85)
    assert reason in flaw


def test_h2load_refuses_an_open_loop(tmp_path):
    job = Job("a:1", (Body(0, {}, b""),), tmp_path, cpu=0, connections=1, streams=1, rate_per_s=5.0)
    with pytest.raises(LoadFailed, match="open loop"):
        H2load().run(job, None)
