"""Documents as they were, without their overrides, and as nobody may change them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from gateway.config.change import DocumentChange
from gateway.config.store.store import Put

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import BERT, DIGITS, FILE, revision, there

pytestmark = pytest.mark.slow


def test_history_show_and_rollback_go_together(crossgate, digits):
    at = revision(crossgate("set", "digits", "traffic.split.canary=10", "-m", "more"))
    crossgate("delete", "digits", "-m", "by mistake")
    rows = [re.split(r"  +", line) for line in crossgate("history", "digits").splitlines() if line]
    assert [row[0] for row in rows] == ["generation", "g1", "g2", "g3"]
    assert rows[2][3:] == ["anna", "set", "~ traffic.split.canary: 5 -> 10", "more"]
    assert rows[3][4:] == ["delete", "deleted", "by mistake"]
    assert "~ traffic.split.canary: 5 -> 10" in crossgate("history", "digits", "--diff")
    plain = json.loads(crossgate("history", "digits", "--json", "-n", 1))
    assert [(each["generation"], each["document"]) for each in plain] == [(3, None)]
    assert yaml.safe_load(crossgate("show", "digits", "--revision", at))["traffic"]["split"]["canary"] == 10
    assert yaml.safe_load(crossgate("show", "digits", "--generation", 1))["traffic"]["split"]["canary"] == 5
    assert "was deleted then" in crossgate("show", "digits", status=1)
    said = crossgate("rollback", "digits", "--to", at, "-m", "undo")
    assert "generation 4" in said
    assert "as in generation 2 again" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 10
    assert json.loads(crossgate("history", "digits", "--json"))[-1]["restored"] == 2
    crossgate("rollback", "digits", "--to", "g1")
    assert there(crossgate) == yaml.safe_load(FILE)
    assert crossgate("rollback", "digits", "--to", "g1").startswith("unchanged: digits")


def test_a_rollback_to_a_number_that_is_no_revision_of_the_document_says_what_is_one(crossgate):
    crossgate("apply", "-f", crossgate.write("iris.yaml", "model: iris\n"))
    crossgate("set", "iris", "retry=never")  # so that the number of a version is a revision of the store
    first = revision(crossgate("apply", "-f", crossgate.write("digits.yaml", FILE)))
    crossgate("set", "iris", "retry=auto")
    second = revision(crossgate("set", "digits", "retry=never"))
    said = crossgate("rollback", "digits", "--to", "1", status=1)
    assert "revision 1 is not in the history of digits: --to takes a revision of the document" in said
    assert "no version of the model" in said
    assert f"The latest revisions are {second} (g2), {first} (g1)." in said
    assert "`crossgate history digits`" in said
    between = crossgate("rollback", "digits", "--to", first + 1, status=1)
    assert f"in force at {first + 1} was g1" in between
    assert there(crossgate)["retry"] == "never"
    assert f"digits: is as in generation 1 again (revision {first})" in crossgate(
        "rollback", "digits", "--to", first
    )
    assert f"is as in generation 1 (revision {first})" in crossgate("rollback", "digits", "--to", first)
    asked = " ".join(re.sub(r"[│╭╰─╮╯]", " ", crossgate("rollback", "--help")).split())
    assert "A revision of the document" in asked
    assert "Not a version of the model." in asked


def test_a_rollback_to_its_deletion_of_what_is_deleted_says_where_to_look(crossgate, digits):
    crossgate("delete", "digits")
    assert "`crossgate history digits` shows" in crossgate("rollback", "digits", "--to", "g2", status=1)
    crossgate("rollback", "digits", "--to", "g1")
    assert "digits: is deleted, as in generation 2 again" in crossgate("rollback", "digits", "--to", "g2")


@pytest.mark.parametrize(
    ("to", "words", "status"),
    [
        ("g9", "kept are g1 to g1", 1),
        ("0", "not in the history", 1),
        ("last", "neither a generation such as g12", 2),
    ],
)
def test_a_rollback_to_what_is_not_there_says_what_is(crossgate, digits, to, words, status):
    assert words in crossgate("rollback", "digits", "--to", to, status=status)


def test_a_rollback_to_another_digest_of_a_version_is_refused(crossgate):
    async def past_the_ledger(ledger, store):
        for digest in ("a" * 64, "b" * 64):
            data = {
                "model": "digits",
                "versions": {"1": {"source": "file:///m", "digest": f"sha256:{digest}"}},
            }
            await store.commit([Put("models/digits", json.dumps(data).encode())])
            base = await ledger.read(DIGITS)
            await ledger.commit([DocumentChange(DIGITS, data | {"retry": "never"}, base, "set")], BERT)

    crossgate.at_store(past_the_ledger)
    assert "a changed file is a new version" in crossgate("rollback", "digits", "--to", "g1", status=1)


def test_overrides_are_shown_with_what_is_left_of_them_and_can_be_cut_short(crossgate, digits):
    said = crossgate("set", "digits", "traffic.split.canary=50", "--for", "15m", "-m", "test")
    id = re.search(r"override ([0-9a-f]{8}) reverts by itself in 900 s", said)[1]
    assert re.search(rf"{id} by anna, 14m 5\ds left|{id} by anna, 15m left", crossgate("get"))
    assert there(crossgate)["traffic"]["split"]["canary"] == 5
    effective = json.loads(crossgate("get", "digits", "--effective", "-o", "json"))
    assert effective["traffic"]["split"]["canary"] == 50
    assert f'{id}: {{"traffic":{{"split":{{"canary":50}}}}}}' in crossgate("history", "digits")
    assert "nothing" in crossgate("revert", "digits", "nothing", status=1)
    assert f"ended {id}" in crossgate("revert", "digits", by="bert")
    assert "has no override in force" in crossgate("revert", "digits", status=1)
    assert json.loads(crossgate("get", "digits", "--effective", "-o", "json")) == there(crossgate)


def test_frozen_models_are_not_changed_by_any_command(crossgate, digits):
    crossgate("set", "digits", "retry=never", "--for", "1h")
    assert "frozen: dig*; `crossgate unfreeze 'dig*'` ends it" in crossgate(
        "freeze", "dig*", "-m", "the fair"
    )
    digits.write_text(FILE + "required: true\n")
    for command in (
        ("apply", "-f", digits),
        ("set", "digits", "required=true"),
        ("set", "digits", "required=true", "--for", "1m"),
        ("delete", "digits"),
        ("rollback", "digits", "--to", "g1", "--dry-run"),
        ("revert", "digits"),
        ("apply", "-f", digits, "--dry-run"),
        ("sync", digits.parent),
    ):
        expected = 0 if command[0] == "rollback" else 1
        said = crossgate(*command, status=expected)
        assert "is frozen: the fair; `crossgate unfreeze 'dig*'` ends that" in said or expected == 0
    assert 'did you mean "dig*"' in crossgate("unfreeze", "dig", status=1)
    assert "no longer frozen: dig*" in crossgate("unfreeze", "dig*")
    crossgate("apply", "-f", digits)
    assert there(crossgate, "policies/gateway") == {}


def test_freezing_says_why(crossgate, digits):
    assert "--why" in crossgate("freeze", status=2)
    assert "say why" in crossgate("freeze", "-m", " ", status=2)


def test_a_pattern_that_freezes_no_model_is_pointed_out(crossgate, digits):
    assert 'no model is called "digts" now; did you mean "digits"?' in crossgate(
        "freeze", "digts", "-m", "the fair"
    )
    said = crossgate("freeze", "-m", "the fair")
    assert "frozen: *; `crossgate unfreeze` ends it" in said
    assert "no model" not in said
