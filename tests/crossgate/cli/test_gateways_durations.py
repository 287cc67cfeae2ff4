from __future__ import annotations

import pytest

from crossgate.cli.durations import parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("1d", 86_400),
        (" 5M ", 300),
        ("1m30s250ms", 90.25),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1m30", "30s1m", "1m1m", "-5s", "0s", "1 h", "1w", "inf", "1e3s"])
def test_what_is_no_duration_is_told_what_one_is(text):
    with pytest.raises(ValueError, match="is no duration such as 90s, 15m, 2h or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (-1, "0 ms"),
        (0.45, "450 ms"),
        (59.9, "59s"),
        (60, "1m"),
        (3605, "1h"),
        (5400, "1h 30m"),
        (90_000, "1d 1h"),
    ],
)
def test_durations_are_shown_in_two_units(seconds, shown):
    assert show_duration(seconds) == shown


@pytest.mark.parametrize("text", ["15", " 1.5 "])
def test_a_number_without_a_unit_is_told_the_units(text):
    number = text.strip()
    with pytest.raises(ValueError, match=f"has no unit: write {number}s, {number}m or {number}h"):
        parse_duration(text)
