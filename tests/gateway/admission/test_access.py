from __future__ import annotations

import hashlib

import pytest

from gateway.admission.access import Access, NotAllowed, TokenMissing, TokenUnknown
from gateway.config.access_document import validate_access


def digest(token):
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


READERS = {
    "access": "readers",
    "tokens": [digest("r1"), digest("r2")],
    "allow": [{"models": ["digits", "vision-*"]}],
}
OWNERS = {
    "access": "owners",
    "tokens": [digest("o")],
    "allow": [{"models": ["*"], "actions": ["infer", "read", "manage"]}],
}
ANYBODY = {"access": "anybody", "anonymous": True, "allow": [{"models": ["open"], "actions": ["infer"]}]}


@pytest.fixture
def access():
    it = Access()
    it.replace([validate_access(each) for each in (READERS, OWNERS, ANYBODY)], enforced=True)
    return it


def outcome(access, token, model, action="infer"):
    metadata = {} if token is None else {"authorization": f"Bearer {token}"}
    return type(access.refusal(metadata, model, action))


ALLOWED = type(None)


@pytest.mark.parametrize(
    ("token", "model", "action", "expected"),
    [
        ("r1", "digits", "infer", ALLOWED),
        ("r2", "vision-1", "read", ALLOWED),
        ("r1", "vision", "infer", NotAllowed),
        ("r1", "digits", "manage", NotAllowed),
        ("r1", "open", "infer", ALLOWED),
        ("o", "anything", "manage", ALLOWED),
        ("x", "digits", "infer", TokenUnknown),
        ("x", "open", "infer", ALLOWED),
        ("", "digits", "infer", TokenUnknown),
        (None, "open", "infer", ALLOWED),
        (None, "open", "read", NotAllowed),
        (None, "digits", "infer", NotAllowed),
        (digest("o"), "digits", "infer", TokenUnknown),
    ],
)
def test_who_may_do_what(access, token, model, action, expected):
    assert outcome(access, token, model, action) is expected
    assert outcome(access, token, model, action) is expected  # as it was remembered


def test_without_a_document_for_everybody_a_token_is_asked_for():
    access = Access()
    access.replace([validate_access(READERS)], enforced=True)
    assert outcome(access, None, "digits") is TokenMissing
    access.replace([], enforced=True)
    assert outcome(access, "r1", "digits") is TokenUnknown


def test_an_open_gateway_asks_nobody(access):
    access.replace([], enforced=False)
    assert outcome(access, None, "digits", "manage") is ALLOWED


def test_a_change_holds_at_once(access):
    assert outcome(access, "r1", "digits") is ALLOWED
    access.replace([validate_access(OWNERS)], enforced=True)
    assert outcome(access, "r1", "digits") is TokenUnknown


@pytest.mark.parametrize("header", ["bearer r1", "BEARER r1", "Bearer  r1 "])
def test_the_scheme_is_read_in_any_case(access, header):
    assert access.refusal({"authorization": header}, "digits", "infer") is None


@pytest.mark.parametrize("header", ["r1", "Basic r1", "Bearer", "Bearer " + "r1" * 10_000])
def test_what_is_no_bearer_token_is_unknown(access, header):
    assert isinstance(access.refusal({"authorization": header}, "digits", "infer"), TokenUnknown)


def test_callers_who_come_up_with_names_do_not_fill_the_memory(access):
    for number in range(10_000):
        access.refusal({}, f"m{number}", "infer")
    assert len(access._known) <= 4096
