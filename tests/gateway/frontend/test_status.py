"""Every cause has its status, in the answer and in the spans."""

from __future__ import annotations

import importlib
import pkgutil

import grpc
import pytest

import gateway
from gateway import errors
from gateway.errors import Exhausted, GatewayError
from gateway.extension import find_extension
from gateway.frontend.status import MAX_MESSAGE_BYTES, PUSHBACK_KEY, pushback, status_code, status_message
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.spans import _STATUS_CODES

CODES = {
    "InvalidRequest": "INVALID_ARGUMENT",
    "NotFound": "NOT_FOUND",
    "Denied": "PERMISSION_DENIED",
    "Unauthenticated": "UNAUTHENTICATED",
    "NotReady": "UNAVAILABLE",
    "Exhausted": "RESOURCE_EXHAUSTED",
    "Expired": "DEADLINE_EXCEEDED",
    "Cancelled": "CANCELLED",
    "NotOffered": "UNIMPLEMENTED",
    "ModelFailure": "INTERNAL",
    "Bug": "INTERNAL",
    "GatewayError": "INTERNAL",
}


# Failures between gateway and worker, which its owner catches: no caller ever sees them.
INTERNAL = {"RequestRefused", "WorkerLost"}


def all_errors() -> list[type[GatewayError]]:
    """Every expected failure that any module of the gateway declares."""
    passed_over = {"gateway._native"}
    if find_extension().module is None:
        passed_over.add("gateway.frontend.native")
    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if module.name not in passed_over:
            importlib.import_module(module.name)
    found, unseen = {GatewayError}, [GatewayError]
    while unseen:
        subclasses = [c for c in unseen.pop().__subclasses__() if c.__module__.startswith("gateway.")]
        unseen += subclasses
        found.update(subclasses)
    return sorted(found, key=lambda type_: (type_.__module__, type_.__name__))


ERRORS = all_errors()
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def blank(type_: type[GatewayError]) -> GatewayError:
    """An error without its data, of which its status must not depend."""
    return type_.__new__(type_)


def cause(type_: type[GatewayError]) -> str:
    return next(c.__name__ for c in type_.__mro__ if c.__module__ == errors.__name__)


@pytest.mark.parametrize("type_", ERRORS, ids=lambda t: t.__name__)
def test_status_is_that_of_the_nearest_cause(type_):
    assert NAMES[status_code(blank(type_))] == CODES[cause(type_)]


def test_every_cause_is_known():
    assert {cause(type_) for type_ in ERRORS} == set(CODES)


def test_every_error_has_a_cause_but_those_that_no_caller_sees():
    without = {type_.__name__ for type_ in ERRORS if cause(type_) == "GatewayError"}
    assert without <= {"GatewayError", *INTERNAL}


@pytest.mark.parametrize(
    "type_",
    ERRORS,
    ids=lambda t: t.__name__,
)
def test_spans_say_what_the_caller_is_told(type_):
    assert _STATUS_CODES[Outcome.of(blank(type_))] == NAMES[status_code(blank(type_))]


@pytest.mark.parametrize("type_", ERRORS, ids=lambda t: t.__name__)
def test_pushback_is_given_where_a_retry_makes_sense_and_only_there(type_):
    retry_after_ms = type_.retry_after_ms if issubclass(type_, Exhausted) else None
    expected = () if retry_after_ms is None else ((PUSHBACK_KEY, str(retry_after_ms)),)
    assert pushback(blank(type_)) == expected


@pytest.mark.parametrize("name", ["QueueFull", "GatewayFull"])
def test_full_queues_ask_for_a_retry(name):
    (type_,) = [t for t in ERRORS if t.__name__ == name]
    assert int(pushback(blank(type_))[0][1]) > 0


@pytest.mark.parametrize("name", ["MessageTooLarge", "TensorsTooLarge", "ResponseTooLarge"])
def test_what_is_too_large_stays_too_large(name):
    (type_,) = [t for t in ERRORS if t.__name__ == name]
    assert pushback(blank(type_)) == ()


@pytest.mark.parametrize("text", ["", "short", "x" * MAX_MESSAGE_BYTES, "日" * (MAX_MESSAGE_BYTES // 3)])
def test_message_within_the_limit_is_whole(text):
    assert status_message(GatewayError(text)) == text


@pytest.mark.parametrize("text", ["x" * (MAX_MESSAGE_BYTES + 1), "日" * MAX_MESSAGE_BYTES, "é" * 100_000])
def test_longer_message_is_cut_between_characters(text):
    message = status_message(GatewayError(text))
    assert message.endswith("...")
    assert text.startswith(message[:-3])
    assert MAX_MESSAGE_BYTES - 6 <= len(message.encode()) <= MAX_MESSAGE_BYTES
