from __future__ import annotations

import pytest

from gateway.telemetry.accounts import Accounts
from gateway.telemetry.outcome import Outcome


def names(accounts):
    return [(account.model, account.version) for account in accounts]


def test_opening_a_version_twice_gives_the_same_account():
    accounts = Accounts()
    assert accounts.open("m", "1") is accounts.open("m", "1")
    assert names(accounts) == [("", ""), ("m", "1")]


@pytest.mark.parametrize(
    ("model", "version", "found"),
    [
        ("m", "1", ("m", "1")),
        ("m", "9", ("m", "")),
        ("m", "", ("m", "")),
        ("nope", "1", ("", "")),
        ("", "", ("", "")),
    ],
)
def test_caller_names_lead_to_a_configured_or_an_unnamed_account(model, version, found):
    accounts = Accounts()
    accounts.open("m", "1")
    account = accounts.find(model, version)
    assert (account.model, account.version) == found


def test_callers_cannot_make_series():
    accounts = Accounts()
    accounts.open("m", "1")
    for i in range(100):
        accounts.find(f"made-up-{i}", "1").record_failure(Outcome.NOT_FOUND, 1)
        accounts.find("m", f"{i + 2}").record_failure(Outcome.NOT_FOUND, 1)
    assert names(accounts) == [("", ""), ("m", "1"), ("m", "")]
    assert accounts.unknown.failures[Outcome.NOT_FOUND] == 100
    assert accounts.find("m").failures[Outcome.NOT_FOUND] == 100


def test_closing_the_last_version_forgets_the_model():
    accounts = Accounts()
    accounts.open("m", "1")
    accounts.open("m", "2")
    accounts.find("m", "7")
    accounts.close("m", "1")
    assert names(accounts) == [("", ""), ("m", "2"), ("m", "")]
    accounts.close("m", "2")
    accounts.close("m", "2")
    accounts.close("other", "1")
    assert names(accounts) == [("", "")]
    assert accounts.find("m", "2") is accounts.unknown


def test_iteration_survives_opening():
    accounts = Accounts()
    accounts.open("a", "1")
    seen = []
    for account in accounts:
        seen.append(account.model)
        accounts.open(f"{account.model}b", "1")
    assert seen == ["", "a"]
