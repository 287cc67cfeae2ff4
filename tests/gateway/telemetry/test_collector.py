from __future__ import annotations

import pytest

from gateway.telemetry.collector import (
    Collector,
    UnsupportedExporter,
    UnsupportedPropagator,
    follows_callers,
)

BASE = "http://127.0.0.1:4318"
ENDPOINT, OWN_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL, OWN_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
HTTP = "http/protobuf"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({ENDPOINT: BASE}, Collector("grpc", BASE)),
        ({ENDPOINT: BASE, PROTOCOL: "grpc"}, Collector("grpc", BASE)),
        ({ENDPOINT: "collector:4317"}, Collector("grpc", "collector:4317")),
        ({ENDPOINT: BASE, PROTOCOL: HTTP}, Collector(HTTP, f"{BASE}/v1/traces")),
        ({ENDPOINT: f"{BASE}/otlp/", PROTOCOL: HTTP}, Collector(HTTP, f"{BASE}/otlp/v1/traces")),
        ({ENDPOINT: "http://base", OWN_ENDPOINT: BASE, PROTOCOL: HTTP}, Collector(HTTP, BASE)),
        ({ENDPOINT: BASE, PROTOCOL: "grpc", OWN_PROTOCOL: HTTP}, Collector(HTTP, f"{BASE}/v1/traces")),
    ],
)
def test_standard_variables_name_the_collector(environ, expected):
    assert Collector.from_environment(environ) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "otlp,console"),
        (PROTOCOL, "http/json"),
        (OWN_PROTOCOL, "HTTP"),
    ],
)
def test_exporter_that_is_not_there_is_named(variable, value):
    with pytest.raises(
        UnsupportedExporter, match=f"{variable}={value}: .*(grpc or http/protobuf|otlp or none)"
    ):
        Collector.from_environment({ENDPOINT: BASE, variable: value})


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "collector", "unix:///run/otel", "http://"])
def test_endpoint_for_http_must_be_a_url(endpoint):
    with pytest.raises(UnsupportedExporter, match="needs a URL") as raised:
        Collector.from_environment({ENDPOINT: endpoint, PROTOCOL: HTTP})
    assert raised.value.variable == ENDPOINT


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        (None, True),
        ("", True),
        ("tracecontext", True),
        ("tracecontext, baggage", True),
        ("baggage", False),
        ("none", False),
    ],
)
def test_propagators_decide_whether_callers_bring_traces(text, follows):
    assert follows_callers({} if text is None else {"OTEL_PROPAGATORS": text}) is follows


@pytest.mark.parametrize("text", ["b3", "tracecontext,jaeger", "xray"])
def test_propagator_that_is_not_read_is_named(text):
    with pytest.raises(UnsupportedPropagator, match=text):
        follows_callers({"OTEL_PROPAGATORS": text})
