from __future__ import annotations

import pytest

from gateway.http.negotiation import choose

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.7,*/*;q=0.5"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", TEXT),
        ("text/plain", TEXT),
        ("application/openmetrics-text", OPEN),
        ("Application/OpenMetrics-Text ; Version=1.0.0", OPEN),
        ("application/*", OPEN),
        (PROMETHEUS_2, OPEN),
        (PROMETHEUS_3, OPEN),
        (PROTOBUF_FIRST, OPEN),
        ("application/openmetrics-text;version=0.0.1,text/plain;q=0.1", TEXT),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5", TEXT),
        ("application/openmetrics-text;q=0.500,text/plain;q=0.499", OPEN),
        ("text/plain;version=0.0.4;q=0.2, application/openmetrics-text;q=0.3, */*", OPEN),
        ("*/*, application/openmetrics-text;q=0", TEXT),
        ("*/*;q=0.5, text/plain;q=0", OPEN),
        ('application/openmetrics-text;version="1.0.0"', OPEN),
        ('text/plain;a=",application/openmetrics-text";q=0.1,application/openmetrics-text;q=0.05', TEXT),
    ],
)
def test_the_most_precise_range_says_how_much_a_format_is_liked(accept, chosen):
    assert choose(accept, [TEXT, OPEN]) == chosen


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/plain;q=0,application/openmetrics-text;q=0",
        "application/openmetrics-text;q=2",
        "application/openmetrics-text;q=x",
        "application/openmetrics-text;q",
        "application/openmetrics-text;=",
        "application",
        "*/openmetrics-text",
        "/",
        ",,;,",
        '"',
        "\xff\xff/*",
        "," * 8000,
        '"' * 8000,
        ";" * 8000,
        "a/b;" + "q=0." * 2000,
        "application/openmetrics-text," * 100,
        '"' + '\\"' * 480,
    ],
)
def test_who_accepts_nothing_of_it_or_is_not_understood_gets_the_first(accept):
    assert choose(accept, [TEXT, OPEN]) == TEXT
