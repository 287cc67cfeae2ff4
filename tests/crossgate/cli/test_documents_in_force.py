"""What a plan says of gateways on which something else is in force than what is stored."""

from __future__ import annotations

import pytest

from crossgate.cli.documents_in_force import in_force_lines
from crossgate.cli.documents_plan import Cluster
from gateway.config.status import ModelReport, Presence


def presence(name="one", observed=19):
    return Presence(name, "n1", "0.1", "127.0.0.1:1", "unix:/s", 1, "2026-11-23T00:00:00+00:00", observed)


def lines(report, observed=19):
    reports = {("one", "digits"): report} if report is not None else {}
    return list(in_force_lines("digits", 19, Cluster({}, (presence(observed=observed),), reports)))


@pytest.mark.parametrize(
    "report", [None, ModelReport("digits", 19, applied=19), ModelReport("digits", 25, applied=25)]
)
def test_nothing_is_said_of_a_gateway_where_it_is_in_force(report):
    assert lines(report) == []


@pytest.mark.parametrize(
    ("report", "observed", "line"),
    [
        (
            ModelReport("digits", 19, applied=16, waits=("version 3: no file", "version 4: no file")),
            19,
            "gateway one has the routing of revision 16 in force, and not that of 19, which waits for "
            "version 3: no file; version 4: no file",
        ),
        (
            ModelReport("digits", 19, waits=tuple(f"version {i}" for i in range(5))),
            19,
            "gateway one has no routing in force, and not that of 19, which waits for version 0; version 1; "
            "version 2 and 2 more",
        ),
        (
            ModelReport("digits", 19, applied=16, problem="labels: expected a mapping"),
            19,
            "gateway one serves the document before that of revision 19, which is not valid: labels: "
            "expected a mapping",
        ),
        (None, 16, "gateway one has not seen revision 19 yet"),
        (ModelReport("digits", 16, applied=16), 16, "gateway one has not seen revision 19 yet"),
    ],
)
def test_what_is_in_force_instead_is_said_with_the_reason(report, observed, line):
    assert lines(report, observed) == [line]


def test_each_gateway_has_its_line():
    there = Cluster({}, (presence("two", 16), presence("one"), presence("three", 16)))
    found = [line.split()[1] for line in in_force_lines("digits", 19, there)]
    assert found == ["three", "two"]
