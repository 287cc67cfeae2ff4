import pytest

from bench.cpu import (
    Memory,
    ProcessStat,
    Usage,
    family,
    parse_busy_ticks,
    parse_memory,
    parse_stat,
    used_between,
)

STAT = (
    "4242 (python3) S 17 4242 4242 0 -1 4194560 5173 90 0 0 331 42 5 7 20 0 3 0 103215 41746432 9832 "
    "18446744073709551615 1 1 0 0 0 0 0 16781312 16386 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
ROLLUP = """\
55d5c0a00000-7ffd2a9f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               39328 kB
Pss:               22160 kB
Pss_Dirty:         18000 kB
Shared_Clean:      17168 kB
"""


@pytest.mark.parametrize(
    "name",
    ["python3", "tmux: server", "a) S 9 9", "(sd-pam)", ""],
    ids=["plain", "space", "paren", "nested", "empty"],
)
def test_stat_is_read_whatever_the_process_is_called(name):
    stat = parse_stat(STAT.replace("python3", name))
    assert stat == ProcessStat(pid=4242, parent=17, ticks=331 + 42 + 5 + 7)


def test_reaped_children_stay_in_the_sum():
    """A worker that used 50 ticks dies and is reaped: its parent's own fields take them over."""
    before = [
        parse_stat("1 (gateway) S 0 1 1 0 -1 0 0 0 0 0 10 0 0 0 20"),
        parse_stat("2 (worker) S 1 1 1 0 -1 0 0 0 0 0 45 5 0 0 20"),
    ]
    after = [parse_stat("1 (gateway) S 0 1 1 0 -1 0 0 0 0 0 10 0 45 5 20")]
    assert sum(stat.ticks for stat in after) == sum(stat.ticks for stat in before)


def test_a_process_that_started_in_between_counts_from_zero():
    assert used_between({1: 2.0, 2: 5.0}, {1: 2.5, 3: 0.25}) == [0.5, 0.25]


@pytest.mark.parametrize(
    ("roots", "found"),
    [
        ([10], {10, 11, 12, 13}),
        ([11], {11, 13}),
        ([11, 12], {11, 12, 13}),
        ([10, 11], {10, 11, 12, 13}),
        ([99], set()),
        ([], set()),
    ],
)
def test_family_is_the_roots_and_all_below(roots, found):
    parents = {1: 0, 10: 1, 11: 10, 12: 10, 13: 11, 20: 1}
    processes = {pid: ProcessStat(pid, parent, 0) for pid, parent in parents.items()}
    assert family(roots, processes) == found


def test_memory_is_read_in_bytes():
    assert parse_memory(ROLLUP) == Memory(pss_bytes=22160 * 1024, rss_bytes=39328 * 1024)


def test_memory_adds_up():
    assert Memory(1, 20) + Memory(300, 4000) == Memory(301, 4020)


def test_busy_ticks_leave_out_idling_and_guests_that_user_time_holds_already():
    stat = "cpu  100 20 30 4000 500 6 7 8 90 9\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
    assert parse_busy_ticks(stat) == 100 + 20 + 30 + 6 + 7 + 8


@pytest.mark.parametrize(
    ("busy_s", "own_s", "share"),
    [(4.0, 4.0, 0.0), (4.0, 3.0, 0.25), (4.0, 0.0, 1.0), (3.9, 4.0, 0.0)],
    ids=["alone", "disturbed", "only others", "readings a tick apart"],
)
def test_what_is_not_ours_is_the_work_of_others(busy_s, own_s, share):
    before = Usage(at_s=10.0, busy_s=100.0, own_s=50.0, cpus=2)
    after = Usage(at_s=12.0, busy_s=100.0 + busy_s, own_s=50.0 + own_s, cpus=2)
    assert before.others_share(after) == pytest.approx(share)
