from __future__ import annotations

import pytest

from crossgate.cli import gateways_figures as figures


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [
        (0, "0"),
        (0.0004, "<0.001"),
        (0.0234, "0.023"),
        (3.14, "3.1"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (41_234, "41k"),
        (999_600, "1.0M"),
    ],
)
def test_rates(per_second, shown):
    assert figures.rate(per_second) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.00025, "250us"),
        (0.0009996, "1.0ms"),
        (0.0453, "45ms"),
        (0.9996, "1.0s"),
        (12.3, "12s"),
    ],
)
def test_seconds(seconds, shown):
    assert figures.seconds(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0"), (812, "812 B"), (1000, "1.0 KiB"), (47_185_920, "45 MiB"), (5 * 2**40, "5.0 TiB")],
)
def test_sizes(size_bytes, shown):
    assert figures.size(size_bytes) == shown


def test_percent_and_numbers_may_be_absent():
    assert (figures.percent(None), figures.percent(95.0), figures.percent(0.4)) == ("-", "95%", "0.4%")
    assert (figures.number(None), figures.number(7.5)) == ("-", "7.5")
