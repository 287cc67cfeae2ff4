"""Receivers of traces."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the modules beside this file

from otlp_receiver import RECEIVERS, GrpcReceiver


@pytest.fixture(autouse=True)
def no_standard_variables(monkeypatch):
    """What the environment of the tests says about OpenTelemetry is not about these."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def receiver():
    """An OTLP receiver over gRPC."""
    with GrpcReceiver() as receiver:
        yield receiver


@pytest.fixture(params=RECEIVERS)
def any_receiver(request):
    """An OTLP receiver over each protocol."""
    with RECEIVERS[request.param]() as receiver:
        yield receiver
