"""Files into the store: what `apply` and `diff` do, and what a dry run says of it."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import yaml

from gateway.config.ledger import Ledger
from gateway.config.status import ModelReport, Presence
from gateway.config.store.store import Put

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import FILE, by_bert, generation, revision, there

pytestmark = pytest.mark.slow


def test_apply_says_what_it_did_and_get_shows_it(crossgate):
    path = crossgate.write("digits.yaml", FILE)
    said = crossgate("apply", "-f", path, "-m", "first")
    assert said == f"digits: generation 1, revision {revision(said)} (by anna: first)\n"
    shown = crossgate("get", "digits")
    assert shown.startswith(f"# crossgate: digits generation 1, revision {revision(said)}, by anna\n")
    assert yaml.safe_load(shown) == yaml.safe_load(FILE) == there(crossgate)
    assert re.search(r"digits +\d+ +versions 1, 2; labels canary=2, stable=1", crossgate("get"))
    assert crossgate("get", "-o", "names") == "digits\n"
    assert crossgate("apply", "-f", path) == "unchanged: digits\n"


def test_apply_takes_every_format_and_several_documents_in_one_transaction(crossgate):
    crossgate.write("in/digits.yaml", FILE)
    crossgate.write("in/iris.json", '{"model": "iris"}')
    crossgate.write("in/wine.xml", "<document><model>wine</model><required>true</required></document>")
    crossgate.write("in/more.yaml", "access: readers\nanonymous: true\n---\nlog_level: debug\n")
    said = crossgate("apply", "-f", crossgate.folder / "in")
    assert len({revision(line) for line in said.splitlines()}) == 1
    names = crossgate("get", "-o", "names").split()
    assert names == ["digits", "iris", "wine", "policies/gateway", "access/readers"]
    assert there(crossgate, "wine") == {"model": "wine", "required": True}


@pytest.mark.parametrize("output", ["yaml", "xml", "json"])
def test_what_get_shows_can_be_applied_again(crossgate, digits, output):
    shown = crossgate("get", "digits", "-o", output)
    crossgate("delete", "digits")
    assert "generation 3" in crossgate("apply", "-f", "-", input=shown)
    assert there(crossgate) == yaml.safe_load(FILE)


def test_every_mistake_is_reported_with_file_path_and_near_name_and_nothing_is_written(crossgate):
    crossgate.write("in/a.yaml", "model: a\nbatchin: {}\n")
    crossgate.write("in/b.yaml", "model: b\nretry: sometimes\nschema: crossgate/v1\n")
    crossgate.write("in/c.yaml", "model: c\n")
    said = crossgate("apply", "-f", crossgate.folder / "in", status=1)
    assert 'a.yaml: a: batchin: is not a known key; did you mean "batching"?' in said
    assert "b.yaml: b: retry: expected one of" in said
    assert crossgate("get", "-o", "names") == "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: digits\nlabels: {", "digits.yaml: line 2"),
        ("model: digits\nschema: crossgate/v2", '"crossgate/v2" is not supported by this release'),
        ("retry: never", "its kind cannot be told"),
        ("model: a b", '"a b" is no name'),
        ("", "there is no document"),
    ],
)
def test_a_file_that_cannot_be_applied_says_why(crossgate, text, words):
    assert words in crossgate("apply", "-f", crossgate.write("digits.yaml", text), status=1)


def test_a_document_that_is_too_large_says_how_large_it_may_be(crossgate):
    labels = {f"label-{i}": "1" for i in range(30_000)}
    path = crossgate.write("digits.json", json.dumps({"model": "digits", "labels": labels}))
    assert "digits.json: digits: expected at most 458752 bytes" in crossgate("apply", "-f", path, status=1)


def test_what_somebody_changed_since_the_file_was_applied_is_shown_and_not_overwritten(crossgate, digits):
    crossgate("set", "digits", "traffic.split.canary=8", "-m", "hotfix", by="bert")
    digits.write_text(FILE.replace("canary: 5", "canary: 10"))
    said = crossgate("apply", "-f", digits, status=3)
    assert "digits was changed meanwhile" in said
    assert "set by bert" in said
    assert "hotfix" in said
    assert "~ traffic.split.canary: 5 -> 8" in said
    assert "~ traffic.split.canary: 5 -> 10" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 8
    assert "of the same: traffic.split.canary" in crossgate("apply", "-f", digits, "--merge", status=3)
    crossgate("apply", "-f", digits, "--overwrite")
    assert there(crossgate)["traffic"]["split"]["canary"] == 10


def test_changes_of_other_fields_are_put_together_on_request(crossgate, digits):
    crossgate("set", "digits", "retry=never", by="bert")
    digits.write_text(FILE.replace("canary: 5", "canary: 10"))
    assert "--merge makes both" in crossgate("apply", "-f", digits, status=3)
    crossgate("apply", "-f", digits, "--merge")
    assert there(crossgate) == yaml.safe_load(FILE.replace("canary: 5", "canary: 10")) | {"retry": "never"}


def test_a_file_that_has_what_somebody_changed_is_applied(crossgate, digits):
    crossgate("set", "digits", "retry=never", by="bert")
    digits.write_text(FILE.replace("canary: 5", "canary: 10") + "retry: never\n")
    assert generation(crossgate("apply", "-f", digits)) == 3


def test_a_file_is_based_on_what_get_noted_in_it_or_the_operator_says(crossgate, digits):
    crossgate("set", "digits", "retry=never", by="bert")
    got = crossgate("get", "digits")
    crossgate("set", "digits", "required=true", by="bert")
    mine = crossgate.write("mine.yaml", got.replace("retry: never", "retry: auto"))
    said = crossgate("apply", "-f", mine, status=3)
    assert "+ required: true" in said
    assert "+ retry" not in said
    crossgate("apply", "-f", mine, "--based-on", 3)
    assert there(crossgate)["retry"] == "auto"
    assert "required" not in there(crossgate)


def test_what_a_file_of_another_store_notes_is_passed_over(crossgate, digits):
    crossgate("set", "digits", "retry=never", by="bert")
    got = crossgate("get", "digits").replace("retry: never", "required: true")
    far = crossgate.write(
        "far.yaml", re.sub(r"generation 2, revision \d+", "generation 2, revision 999", got)
    )
    assert "set by bert" in crossgate("apply", "-f", far, status=3)
    assert "no generation 9; the latest is 2" in crossgate("apply", "-f", far, "--based-on", 9, status=2)


def test_a_file_from_a_generation_that_is_not_kept_any_more_says_so(crossgate, digits, monkeypatch):
    got = crossgate("get", "digits")
    monkeypatch.setattr("crossgate.cli.documents_session.Ledger", partial(Ledger, retained=2))
    for ratio in (0.1, 0.2, 0.3):
        crossgate("set", "digits", f"trace.ratio={ratio}", by="bert")
    old = crossgate.write("old.yaml", got.replace("canary: 5", "canary: 6"))
    said = crossgate("apply", "-f", old, status=1, by="carl")
    assert "generation 1 of digits, which it is based on, is not kept any more" in said


def test_a_document_that_somebody_deleted_does_not_come_back_by_itself(crossgate, digits):
    crossgate("delete", "digits", "-m", "retired", by="bert")
    digits.write_text(FILE + "retry: never\n")
    assert "delete by bert" in crossgate("apply", "-f", digits, status=3)
    crossgate("apply", "-f", digits, "--overwrite")
    assert there(crossgate)["retry"] == "never"


def test_ones_own_changes_are_no_conflict(crossgate, digits):
    crossgate("set", "digits", "retry=never")
    digits.write_text(FILE.replace("canary: 5", "canary: 10"))
    crossgate("apply", "-f", digits)
    assert "retry" not in there(crossgate)


def test_a_change_between_read_and_write_is_shown_too(crossgate, digits):
    digits.write_text(FILE.replace("canary: 5", "canary: 10"))
    with crossgate.interfering(by_bert(retry="never")):
        assert "set by bert" in crossgate("apply", "-f", digits, status=3)
    with crossgate.interfering(by_bert(required=True)):
        crossgate("apply", "-f", digits, "--merge")
    assert there(crossgate)["retry"] == "never"
    assert there(crossgate)["required"] is True
    assert there(crossgate)["traffic"]["split"]["canary"] == 10


def test_apply_for_a_while_overrides_what_the_file_changes(crossgate, digits):
    digits.write_text(FILE.replace("canary: 5", "canary: 50"))
    assert "reverts by itself in 90 s" in crossgate("apply", "-f", digits, "--for", "90s")
    assert there(crossgate)["traffic"]["split"]["canary"] == 5
    assert "is no duration" in crossgate("apply", "-f", digits, "--for", "soon", status=2)
    gateway = crossgate.write("gateway.yaml", "log_level: debug")
    assert "only models have" in crossgate("apply", "-f", gateway, "--for", "90s", status=2)


def test_diff_shows_what_differs_and_ends_with_1(crossgate, digits):
    assert crossgate("diff", "-f", digits) == ""
    digits.write_text(FILE.replace("canary: 5", "canary: 6"))
    new = crossgate.write("new.yaml", "model: iris\n")
    said = crossgate("diff", "-f", digits, "-f", new, status=1)
    assert said == 'digits\n  ~ traffic.split.canary: 5 -> 6\niris (new)\n  + model: "iris"\n'


def test_a_dry_run_plans_and_writes_nothing(crossgate, digits):
    digits.write_text(FILE.replace("canary: 5", "canary: 15").replace('canary: "2"', 'canary: "1"'))
    before = crossgate("history", "digits")
    for command in (
        ("apply", "-f", digits, "--dry-run"),
        ("set", "digits", "traffic.split.canary=15", "labels.canary=1", "--dry-run"),
    ):
        said = crossgate(*command)
        assert "~ traffic.split.canary: 5 -> 15" in said
        assert "plan: traffic: version 1 95 % -> 100 %, version 2 5 % -> 0 %" in said
        assert "dry run: 1 document would change" in said
    said = crossgate("delete", "digits", "--dry-run")
    assert "plan: unloads version 1" in said
    assert crossgate("history", "digits") == before
    digits.write_text(FILE + "retyr: never")
    assert "it would be refused" in crossgate("apply", "-f", digits, "--dry-run", status=1)


def test_a_dry_run_says_which_gateways_have_something_else_in_force(crossgate, digits):
    async def report(ledger, store):
        there = Presence("one", "n1", "0.1", "127.0.0.1:1", "unix:/s", 1, "2026-11-23T00:00:00Z", 10**6)
        waiting = ModelReport("digits", 10**6, applied=1, waits=("version 2: no file",))
        await store.commit(
            [
                Put("gateways/one", msgspec.json.encode(there)),
                Put("status/one/digits", msgspec.json.encode(waiting)),
                Put("status/one/iris", b"{"),
            ]
        )

    crossgate.at_store(report)
    why = f"gateway one has the routing of revision 1 in force, and not that of {10**6}, which waits for"
    why += " version 2: no file"
    assert f"digits: {why}\ndry run: 0 documents" in crossgate("apply", "-f", digits, "--dry-run")
    folder = crossgate.write("in/digits.yaml", FILE + "retry: never\n").parent
    for command in (
        ("set", "digits", "retry=never"),
        ("set", "digits", "retry=never", "--for", "1h"),
        ("delete", "digits"),
        ("sync", folder),
        ("import", folder, "--overwrite"),
    ):
        assert f"  plan: {why}\n" in crossgate(*command, "--dry-run")
