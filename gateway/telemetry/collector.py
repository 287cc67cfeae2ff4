"""Where spans go, as the standard variables of OpenTelemetry say. Imports nothing of it.

Specification: "OpenTelemetry Protocol Exporter" and "General SDK Configuration".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Protocol = Literal["grpc", "http/protobuf"]

# What a W3C propagator reads and writes; others of the specification carry traces in other headers.
_PROPAGATORS: Final = ("tracecontext", "baggage", "none")


class TraceSettingsInvalid(ValueError):
    """The environment asks for traces in a way that is not there."""

    def __init__(self, variable: str, value: str, instead: str) -> None:
        super().__init__(f"{variable}={value}: {instead}")
        self.variable = variable
        self.value = value


class UnsupportedExporter(TraceSettingsInvalid):
    """The environment asks for a trace exporter or a protocol that is not there."""


class UnsupportedPropagator(TraceSettingsInvalid):
    """The environment asks to read traces from headers that are not read."""


class Collector(msgspec.Struct, frozen=True):
    """An OTLP receiver of traces. `endpoint` is the whole URL for http/protobuf."""

    protocol: Protocol
    endpoint: str

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> Collector | None:
        """What OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT and _PROTOCOL
        say; None where nothing is to be exported: then no endpoint is set, or it is switched off.

        Raises:
            UnsupportedExporter
        """
        own, base = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
        variable, endpoint = first(environ, own, base)
        named, exporter = first(environ, "OTEL_TRACES_EXPORTER")
        disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        if not endpoint or disabled or exporter == "none":
            return None
        if exporter not in ("", "otlp"):
            raise UnsupportedExporter(named, exporter, "traces are exported by OTLP: set it to otlp or none")
        protocol = _protocol(environ)
        if protocol == "http/protobuf":
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise UnsupportedExporter(
                    variable, endpoint, "OTLP over HTTP needs a URL such as http://127.0.0.1:4318"
                )
            if variable == base:
                endpoint = f"{endpoint.rstrip('/')}/v1/traces"
        return Collector(protocol, endpoint)


def _protocol(environ: Mapping[str, str]) -> Protocol:
    variable, protocol = first(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol in ("", "grpc"):
        return "grpc"
    if protocol == "http/protobuf":
        return "http/protobuf"
    raise UnsupportedExporter(
        variable, protocol, "traces are exported by grpc or http/protobuf: set it to one"
    )


def follows_callers(environ: Mapping[str, str]) -> bool:
    """Whether OTEL_PROPAGATORS lets callers bring a trace: it names tracecontext, or is not set.

    Raises:
        UnsupportedPropagator: it names one that carries traces in other headers than W3C's.
    """
    variable, text = first(environ, "OTEL_PROPAGATORS")
    if not text:
        return True
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _PROPAGATORS:
            raise UnsupportedPropagator(
                variable,
                text,
                f"{name} is not read; there are {', '.join(_PROPAGATORS)}",
            )
    return "tracecontext" in names


def first(environ: Mapping[str, str], *variables: str) -> tuple[str, str]:
    """The first of `variables` that is set and not empty, with its value; ("", "") without one."""
    for variable in variables:
        value = environ.get(variable, "").strip()
        if value:
            return variable, value
    return "", ""
