"""Health of the server, a model and a version."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from gateway.errors import NotFound
from gateway.frontend.codec import MalformedRequest
from gateway.frontend.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, HealthServicer


def asked(service: str) -> bytes:
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


def status(message: bytes) -> int:
    return health_pb2.HealthCheckResponse.FromString(message).status


async def only(*messages: bytes):
    for message in messages:
        yield message


@pytest.fixture
def health(catalog):
    return HealthServicer(catalog)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_server_serves_while_it_is_ready(health, catalog, service):
    assert status(health.check(asked(service))) == SERVING
    catalog.is_ready = False
    assert status(health.check(asked(service))) == NOT_SERVING


@pytest.mark.parametrize(
    ("service", "expected"),
    [("m", SERVING), ("m/1", SERVING), ("m/2", SERVING), ("m/3", NOT_SERVING)],
)
def test_model_and_version_have_a_status(health, service, expected):
    assert status(health.check(asked(service))) == expected


def test_model_without_a_ready_version_does_not_serve(health, catalog):
    catalog.served["m"] = {"1": "LOADING", "2": "UNAVAILABLE"}
    assert status(health.check(asked("m"))) == NOT_SERVING


@pytest.mark.parametrize("service", ["", "m", "m/1"])
def test_nothing_serves_while_the_gateway_drains(health, catalog, service):
    catalog.draining = True
    assert status(health.check(asked(service))) == NOT_SERVING


@pytest.mark.parametrize("service", ["n", "m/4", "m/", "n/1", "/", "M"])
def test_unknown_names_are_not_found(health, service):
    with pytest.raises(NotFound, match="unknown service"):
        health.check(asked(service))


def test_garbage_is_malformed(health):
    with pytest.raises(MalformedRequest):
        health.check(b"\xff")


async def test_watch_tells_every_change_once(health, catalog):
    watch = health.watch(only(asked("m/3")))
    assert status(await anext(watch)) == NOT_SERVING
    catalog.served["m"]["3"] = "READY"
    catalog.changed()
    assert status(await anext(watch)) == SERVING
    catalog.changed()  # of something else
    del catalog.served["m"]
    catalog.changed()
    assert status(await anext(watch)) == SERVICE_UNKNOWN
    await watch.aclose()


async def test_watch_of_an_unknown_name_waits_for_it(health, catalog):
    watch = health.watch(only(asked("n")))
    assert status(await anext(watch)) == SERVICE_UNKNOWN
    catalog.served["n"] = {"1": "READY"}
    catalog.changed()
    assert status(await anext(watch)) == SERVING
    await watch.aclose()


async def test_watch_that_ends_is_told_no_more(health, catalog):
    watch = health.watch(only(asked("")))
    await anext(watch)
    assert len(catalog.watchers) == 1
    await watch.aclose()
    assert not catalog.watchers


@pytest.mark.parametrize("messages", [(), (b"\xff",)])
async def test_watch_without_a_request_is_malformed(health, catalog, messages):
    with pytest.raises(MalformedRequest):
        await anext(health.watch(only(*messages)))
    assert not catalog.watchers
