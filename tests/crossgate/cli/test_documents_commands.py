"""What operators type, and what they read."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from gateway.config.kinds import GATEWAY
from gateway.config.store.store import Put
from gateway.config.transaction import Author

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import DIGITS, FILE, by_bert, there

pytestmark = pytest.mark.slow


def test_set_takes_paths_and_types_values(crossgate, digits):
    fields = (
        "traffic.split.canary=10",
        "labels.canary=1",
        "trace.ratio=0.5",
        'labels["a.b"]=2',
        "retry=never",
    )
    said = crossgate("set", "digits", *fields, "retry=never", "-m", "raise canary")
    assert re.fullmatch(r"digits: generation 2, revision \d+ \(by anna: raise canary\)\n", said)
    data = there(crossgate)
    assert data["traffic"]["split"]["canary"] == 10
    assert data["labels"] == {"stable": "1", "canary": "1", "a.b": "2"}
    assert (data["trace"], data["retry"]) == ({"ratio": 0.5}, "never")
    crossgate("set", "digits", "trace.ratio-", "retry-")
    assert not {"trace", "retry"} & there(crossgate).keys()
    assert crossgate("set", "digits", "labels.canary=1") == "unchanged: digits\n"


@pytest.mark.parametrize(
    ("field", "words", "status"),
    [
        ("trafic.split.canary=1", 'did you mean "traffic"', 2),
        ("traffic.split..canary=1", "expected a path such as", 2),
        ("traffic.split.canary", "expected PATH=VALUE", 2),
        ("batching={", "batching: line 1", 2),
        ("labels.stabel-", 'did you mean "stable"', 2),
        ("batching.max_batch_size=many", 'got "many"', 1),
        ("traffic.split.canry=1", 'did you mean "canary"', 1),
    ],
)
def test_a_mistyped_field_names_the_near_one(crossgate, digits, field, words, status):
    assert words in crossgate("set", "digits", field, status=status)
    assert there(crossgate) == yaml.safe_load(FILE)


def test_set_keeps_what_others_change_of_other_fields_and_stops_at_the_same(crossgate, digits):
    with crossgate.interfering(by_bert(retry="never")):
        crossgate("set", "digits", "required=true")
    assert there(crossgate)["retry"] == "never"
    with crossgate.interfering(by_bert(trace={"ratio": 0.1})):
        assert "set by bert" in crossgate("set", "digits", "trace.ratio=0.2", status=3)
    assert there(crossgate)["trace"] == {"ratio": 0.1}


def test_a_mistyped_model_or_command_names_the_near_one(crossgate, digits):
    for command in (
        ("get", "digts"),
        ("set", "digts", "retry=never"),
        ("delete", "digts"),
        ("history", "digts"),
        ("show", "digts"),
        ("rollback", "digts", "--to", "g1"),
        ("revert", "digts"),
        ("edit", "digts"),
    ):
        assert 'did you mean "digits"?' in crossgate(*command, status=1)
    assert "Did you mean 'apply'" in crossgate("aply", "-f", digits, status=2)
    assert "policies/gateway" in crossgate("get", "policies/gatewy", status=2)


def test_json_is_for_scripts(crossgate):
    path = crossgate.write("digits.yaml", FILE)
    done = json.loads(crossgate("apply", "-f", path, "--json"))
    assert done["generations"] == {"digits": 1}
    assert json.loads(crossgate("apply", "-f", path, "--json"))["generations"] == {}
    assert json.loads(crossgate("set", "digits", "retry=never", "--json"))["revision"] == done["revision"] + 1
    assert json.loads(crossgate("set", "digits", "retry=never", "--json")) == {"generations": {}}
    override = json.loads(crossgate("set", "digits", "required=true", "--for", "1m", "--json"))
    assert len(override["override"]) == 8


def test_who_and_why_are_one_line_and_what_others_wrote_cannot_drive_a_terminal(crossgate, digits):
    for option in (("--why", "a\nb"), ("--why", "x" * 1001), ("--by", "\x1b[31m")):
        assert "one line of at most 1000 characters" in crossgate(
            "set", "digits", "retry=never", *option, status=2
        )

    async def past_the_command(ledger, store):
        author = Author("eve\x1b[31m", "a\nb\x9b2J")
        await ledger.amend(DIGITS, lambda data: data | {"retry": "never"}, author, "set")

    crossgate.at_store(past_the_command)
    digits.write_text(FILE + "required: true")
    shown = [
        crossgate("history", "digits"),
        crossgate("history", "digits", "--diff"),
        crossgate("get", "digits"),
        crossgate("apply", "-f", digits, status=3),
    ]
    for said in shown:
        assert "eve [31m" in said
        assert not set("\x1b\x9b") & set(said)


def test_the_gateways_document_is_set_without_being_there_before(crossgate):
    crossgate.at_store(lambda ledger, store: ledger.read(GATEWAY))
    crossgate("set", "policies/gateway", "log_level=debug")
    assert there(crossgate, "policies/gateway") == {"log_level": "debug"}
    assert "only models have" in crossgate(
        "set", "policies/gateway", "log_level=info", "--for", "1m", status=2
    )


def test_keys_that_nobody_reads_are_pointed_out(crossgate, digits):
    crossgate.at_store(
        lambda ledger, store: store.commit([Put("models/a b", b"{}"), Put("models/bad", b"{")])
    )
    said = crossgate("get")
    assert "models/a b is no document; nobody reads it" in said
    assert "models/bad is not JSON" in said
    assert "models/bad is not JSON" in crossgate("set", "bad", "retry=never", status=1)
    crossgate("apply", "-f", crossgate.write("bad.yaml", "model: bad"))
    assert there(crossgate, "bad") == {"model": "bad"}
