from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from gateway.http.endpoints import Endpoints, Readiness
from gateway.http.request import Request

READY = Readiness(True)


def endpoints(readiness=READY):
    return Endpoints(lambda: readiness, lambda: iter([b"a 1\n", b"b 2\n"]))


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/healthz", HTTPStatus.OK, ""),
        ("HEAD", "/readyz", HTTPStatus.OK, ""),
        ("POST", "/healthz", HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD"),
        ("DELETE", "/metrics", HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD"),
        ("GET", "/", HTTPStatus.NOT_FOUND, ""),
        ("POST", "/nope", HTTPStatus.NOT_FOUND, ""),
        ("GET", "/healthz/", HTTPStatus.NOT_FOUND, ""),
    ],
)
def test_only_three_paths_and_two_methods_exist(method, path, status, allow):
    response = endpoints().answer(Request(method, path, True))
    assert (response.status, response.allow) == (status, allow)


@pytest.mark.parametrize(
    ("readiness", "status"),
    [
        (Readiness(True), HTTPStatus.OK),
        (Readiness(True, [], ["the store is away"]), HTTPStatus.OK),
        (Readiness(False, ["digits 3 is loading", "draining"]), HTTPStatus.SERVICE_UNAVAILABLE),
    ],
)
def test_readiness_gives_its_reasons(readiness, status):
    response = endpoints(readiness).answer(Request("GET", "/readyz", True))
    assert response.status is status
    assert response.content_type == "application/json"
    body = json.loads(b"".join(response.body))
    assert body == {
        "ready": readiness.ready,
        "reasons": list(readiness.reasons),
        "notes": list(readiness.notes),
    }


def test_metrics_are_passed_on_piece_by_piece():
    response = endpoints().answer(Request("GET", "/metrics", True))
    assert response.content_type.startswith("text/plain; version=0.0.4")
    assert list(response.body) == [b"a 1\n", b"b 2\n"]


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", b"a 1\nb 2\n"),
        ("other/format", "other/format; version=1", b"other\n"),
        ("other/format;q=0.1, text/plain", "text/plain; version=0.0.4; charset=utf-8", b"a 1\nb 2\n"),
    ],
)
def test_metrics_come_in_the_format_that_the_client_likes_best(accept, content_type, body):
    offering = Endpoints(
        lambda: READY,
        lambda: iter([b"a 1\n", b"b 2\n"]),
        alternatives={"other/format; version=1": lambda: [b"other\n"]},
    )
    response = offering.answer(Request("GET", "/metrics", True, accept))
    assert (response.content_type, b"".join(response.body)) == (content_type, body)
