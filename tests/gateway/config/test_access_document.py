"""Access documents: who somebody is, and what they may do."""

from __future__ import annotations

import pytest

from gateway.config.access_document import validate_access
from gateway.config.errors import DocumentInvalid

DIGEST = "sha256:" + "0" * 64


def access(**more):
    return {"tokens": [DIGEST], "allow": [{"models": ["digits-*"]}], **more}


def test_it_is_named_by_its_key():
    document = validate_access(access(), name="team-a")
    assert (document.access, document.tokens) == ("team-a", (DIGEST,))
    assert document.allow[0].actions == ("infer", "read")


def test_another_name_than_its_key_is_refused():
    with pytest.raises(DocumentInvalid, match="access"):
        validate_access(access(access="team-b"), name="team-a")


@pytest.mark.parametrize(
    ("model", "action", "covered"),
    [
        ("digits-1", "infer", True),
        ("digits-1", "read", True),
        ("digits-1", "manage", False),
        ("digits", "infer", False),
        ("Digits-1", "infer", False),
    ],
)
def test_a_permission_covers_models_by_wildcard_and_the_actions_it_names(model, action, covered):
    assert validate_access(access(), name="a").allow[0].covers(model, action) is covered


def test_anybody_may_be_meant_but_not_nobody():
    assert validate_access({"anonymous": True}, name="a").anonymous
    with pytest.raises(DocumentInvalid, match="anonymous: true"):
        validate_access({"allow": []}, name="a")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "expected a mapping"),
        (access(tokens=["a-plain-token"]), "tokens[0]"),
        (access(tokens=[DIGEST.upper()]), "tokens[0]"),
        (access(tokens=[DIGEST + "\n"]), "tokens[0]"),
        (access(allow=[{"models": []}]), "allow[0].models"),
        (access(allow=[{"models": ["a"], "actions": []}]), "allow[0].actions"),
        (access(allow=[{"models": ["a"], "actions": ["inferr"]}]), "allow[0].actions[0]"),
        (access(token=[DIGEST]), 'did you mean "tokens"'),
        (access(schema="crossgate/v9"), "crossgate/v9"),
        (access(access="../x"), "access"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(data, said):
    with pytest.raises(DocumentInvalid) as refused:
        validate_access(data, name=None if data and "access" in data else "a")
    assert said in str(refused.value)


def test_a_token_that_was_pasted_by_mistake_is_not_repeated():
    with pytest.raises(DocumentInvalid) as refused:
        validate_access(access(tokens=["s3cret-token"]), name="a")
    assert "s3cret" not in str(refused.value)
