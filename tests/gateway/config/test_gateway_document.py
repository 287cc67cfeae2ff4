"""The document of all gateways."""

from __future__ import annotations

import msgspec
import pytest

from gateway.config.errors import DocumentInvalid
from gateway.config.gateway_document import GatewayDocument, validate_gateway


def test_nothing_is_needed():
    assert validate_gateway({}) == GatewayDocument()
    assert validate_gateway({}).access == "open"


def test_what_is_stored_is_what_was_written():
    written = {"access": "enforce", "trace": {"ratio": 0.5}, "log_level": "error", "frozen": {"a*": "why"}}
    document = validate_gateway(written)
    assert msgspec.to_builtins(document) == written
    assert validate_gateway(msgspec.json.decode(msgspec.json.encode(document))) == document


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "expected a mapping"),
        ([], "expected a mapping"),
        ({"acces": "open"}, 'did you mean "access"'),
        ({"access": "enforced"}, 'access: expected one of "enforce", "open"'),
        ({"log_level": "loud"}, "log_level: expected one of"),
        ({"trace": {"ratio": 2}}, "trace.ratio: expected a number from 0 to 1"),
        ({"frozen": {"a": 1}}, "frozen.a: expected text"),
        ({"frozen": {"": "why"}}, "frozen"),
        ({"schema": "crossgate/v2"}, "crossgate/v2"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(data, said):
    with pytest.raises(DocumentInvalid) as refused:
        validate_gateway(data)
    assert said in str(refused.value)


def test_every_problem_is_named():
    with pytest.raises(DocumentInvalid) as refused:
        validate_gateway({"access": "no", "log_level": "loud", "unknown": 1})
    assert len(refused.value.problems) == 3


def test_a_newer_schema_is_refused_alone():
    with pytest.raises(DocumentInvalid) as refused:
        validate_gateway({"schema": "crossgate/v7", "unknown": 1})
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize(
    ("model", "why"), [("fraud-1", "audit"), ("fraud", None), ("Fraud-1", None), ("x", "all of x")]
)
def test_frozen_models_are_named_with_shell_wildcards(model, why):
    document = validate_gateway({"frozen": {"fraud-?": "audit", "x": "all of x"}})
    assert document.frozen_because(model) == why
