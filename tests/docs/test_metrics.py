"""`docs/metrics.md` lists the series that a gateway exposes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.telemetry import series, triton
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.collection import Collection
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.series import Sample, Series

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)


def described():
    """{name: (kind, labels, unit)} of every row of every table"""
    found = {}
    for name, kind, labels, unit, _ in ROW.findall(PAGE.read_text()):
        assert name not in found, f"{name} is listed twice"
        found[name] = (kind, tuple(re.findall(r"`(\w+)`", labels)), unit.strip())
    return found


def exposed():
    """{name: series} of a gateway in which everything is read that can be"""
    accounts = Accounts()
    for module in (series, triton):
        for each in vars(module).values():
            if isinstance(each, Series) and each.kind != "histogram":
                accounts.read_at_scrape(each, lambda each=each: [Sample(tuple(each.labels), 1)])
    return {part.series.name: part.series for part in Collection(accounts, triton_names=True).slices()}


def test_every_series_is_listed_and_no_other():
    assert sorted(described()) == sorted(exposed())


@pytest.mark.parametrize("name", sorted(exposed()))
def test_type_labels_and_unit_are_those_of_the_series(name):
    one = exposed()[name]
    assert described()[name] == (one.kind, one.labels, one.unit)


def test_every_outcome_is_named():
    text = PAGE.read_text()
    assert [outcome.value for outcome in Outcome if f"`{outcome.value}`" not in text] == []
