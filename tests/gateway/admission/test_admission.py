from __future__ import annotations

import pytest

from gateway.admission.admission import (
    Admission,
    DeadlinePassed,
    Draining,
    GatewayFull,
    MessageTooLarge,
    SequencesNotOffered,
    check_parameters,
)
from gateway.call import Call


class NoOrigin:
    def settle(self, replies):
        raise AssertionError("admission settles nothing")


def call(**fields):
    return Call(id=1, origin=NoOrigin(), model="m", inputs=(), arrived_ns=0, **fields)


@pytest.fixture
def admission():
    return Admission(1000)


def check(admission, call, now_ns, limit):
    admission.check(call.model, call.size_bytes, call.deadline_ns, now_ns, limit)
    check_parameters(call)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size_bytes": 1000},
        {"deadline_ns": 101},
        {"parameters": {"priority": 1}},
        {"parameters": {"sequence_id": 0}},
        {"parameters": {"sequence_id": ""}},
    ],
)
def test_these_pass_and_nothing_is_held_yet(admission, fields):
    check(admission, call(**fields), 100, 1000)
    assert admission.held_bytes == 0


@pytest.mark.parametrize(
    ("fields", "limit", "error", "message"),
    [
        ({"deadline_ns": 100}, None, DeadlinePassed, "the deadline had passed when the request arrived"),
        ({"deadline_ns": -1}, None, DeadlinePassed, "the deadline had passed when the request arrived"),
        (
            {"size_bytes": 65},
            64,
            MessageTooLarge,
            "model m: a request of 65 bytes is over the limit of 64 bytes",
        ),
        ({"size_bytes": 1001}, None, GatewayFull, "hold 1000 bytes, which is its limit"),
        (
            {"parameters": {"sequence_id": 7}},
            None,
            SequencesNotOffered,
            "parameter 'sequence_id' is not allowed",
        ),
        ({"parameters": {"sequence_id": "a"}}, None, SequencesNotOffered, "model m does not take sequences"),
        ({"deadline_ns": 1, "size_bytes": 9999}, 64, DeadlinePassed, "the deadline"),
    ],
)
def test_these_are_refused(admission, fields, limit, error, message):
    with pytest.raises(error) as caught:
        check(admission, call(**fields), 100, limit)
    assert message in str(caught.value)


def test_a_draining_gateway_takes_nothing(admission):
    admission.draining = True
    with pytest.raises(Draining, match="send the request to another one"):
        check(admission, call(deadline_ns=1), 100, None)


def test_what_is_held_counts(admission):
    admission.held_bytes = 900
    check(admission, call(size_bytes=100), 0, None)
    with pytest.raises(GatewayFull) as caught:
        check(admission, call(size_bytes=101), 0, None)
    assert caught.value.retry_after_ms == 200


def test_too_large_a_request_is_not_worth_a_retry():
    assert MessageTooLarge("m", 2, 1).retry_after_ms is None
