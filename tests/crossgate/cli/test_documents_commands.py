"""What operators type, and what they read."""

from __future__ import annotations

import json
import re
import stat
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
import yaml

from crossgate.cli.documents_contexts import in_force, resolve_gateway
from crossgate.cli.gateways_address import GatewayAddress
from gateway.config.change import DocumentChange
from gateway.config.kinds import GATEWAY, model_name
from gateway.config.ledger import Ledger
from gateway.config.store.store import Put
from gateway.config.transaction import Author

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import Commands, generation, revision

DIGITS = model_name("digits")
BERT = Author("bert", "hotfix")
FILE = """
# the digits
model: digits
versions:
  "1": {source: "file:///srv/digits/1"}
  "2": {source: "file:///srv/digits/2"}
labels: {stable: "1", canary: "2"}
traffic: {split: {stable: 95, canary: 5}}
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def crossgate(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Commands(tmp_path)


@pytest.fixture
def digits(crossgate):
    """The file of a model that is in the store."""
    path = crossgate.write("digits.yaml", FILE)
    crossgate("apply", "-f", path, "-m", "first")
    return path


def by_bert(**fields):
    """Somebody else sets fields of digits."""

    async def change(ledger, store):
        await ledger.amend(DIGITS, lambda data: data | fields, BERT, "set")

    return change


def there(crossgate, name="digits"):
    return json.loads(crossgate("get", name, "-o", "json"))


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


def test_apply_for_a_while_overrides_what_the_file_changes(crossgate, digits):
    digits.write_text(FILE.replace("canary: 5", "canary: 50"))
    assert "reverts by itself in 90 s" in crossgate("apply", "-f", digits, "--for", "90s")
    assert there(crossgate)["traffic"]["split"]["canary"] == 5
    assert "is no duration" in crossgate("apply", "-f", digits, "--for", "soon", status=2)
    gateway = crossgate.write("gateway.yaml", "log_level: debug")
    assert "only models have" in crossgate("apply", "-f", gateway, "--for", "90s", status=2)


def test_frozen_models_are_not_changed_by_any_command(crossgate, digits):
    crossgate("set", "digits", "retry=never", "--for", "1h")
    assert "frozen: dig*" in crossgate("freeze", "dig*", "-m", "the fair")
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
        assert "is frozen: the fair" in said or expected == 0
    assert 'did you mean "dig*"' in crossgate("unfreeze", "dig", status=1)
    assert "no longer frozen: dig*" in crossgate("unfreeze", "dig*")
    crossgate("apply", "-f", digits)
    assert there(crossgate, "policies/gateway") == {}


def test_freezing_says_why(crossgate, digits):
    assert "--why" in crossgate("freeze", status=2)
    assert "say why" in crossgate("freeze", "-m", " ", status=2)


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


def test_a_store_that_is_not_there_is_not_made_by_reading(crossgate):
    assert f"there is no store {crossgate.path}" in crossgate("get", status=1)
    assert not crossgate.path.exists()


def test_a_store_that_nobody_named_or_is_wrong_says_what_to_name(crossgate):
    assert "which store?" in crossgate("get", status=2, environment={"CROSSGATE_STORE": ""})
    assert "etcd" in crossgate("get", "--store", "etd://127.0.0.1:1", status=2)


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


def test_names_complete_in_a_shell_and_errors_stay_silent(crossgate, digits):
    def complete(words, **options):
        environment = {"_CROSSGATE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
        return crossgate(environment=environment, prog_name="crossgate", **options)

    assert complete("crossgate get dig") == "digits\n"
    assert complete("crossgate get x").strip() == ""
    assert complete("crossgate context u").split() == ["use"]
    crossgate.path.unlink()
    assert complete("crossgate get dig").strip() == ""


def test_contexts_say_which_store_is_meant(crossgate, digits):
    unnamed = {"environment": {"CROSSGATE_STORE": ""}}
    assert "the current one" in crossgate("context", "set", "here", "--store", crossgate.path, **unnamed)
    assert crossgate("get", "-o", "names", **unnamed) == "digits\n"
    other = crossgate.folder / "other.db"
    assert "context use other" in crossgate("context", "set", "other", "--store", other, "--address", "a:1")
    assert f"there is no store {other}" in crossgate("get", "--context", "other", status=1, **unnamed)
    crossgate("context", "use", "other")
    assert str(other) in crossgate("get", status=1, **unnamed)
    rows = json.loads(crossgate("context", "list", "--json"))
    assert [(row["current"], row["name"]) for row in rows] == [("", "here"), ("*", "other")]
    assert json.loads(crossgate("context", "show", "--json"))["address"] == "a:1"
    assert 'did you mean "other"' in crossgate("context", "use", "othr", status=2)
    assert "none is current" in crossgate("context", "delete", "other")
    assert "which store?" in crossgate("get", status=2, **unnamed)
    path = crossgate.folder / "config" / "crossgate" / "contexts.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["contexts.yaml"]


def test_a_gateway_is_named_by_an_option_or_by_the_context(crossgate, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(crossgate.folder / "config"))
    crossgate(
        "context", "set", "here", "--admin", "unix:/run/admin", "--address", "a:1", "--tls-ca", "/ca.pem"
    )
    assert in_force().address == "a:1"
    found = resolve_gateway("")
    assert (found.address, found.tls_ca, found.tls_key) == ("unix:/run/admin", Path("/ca.pem"), None)
    assert resolve_gateway("other:2") == GatewayAddress("other:2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--store", "etcd://user:secret@127.0.0.1:2379"), "password"),
        (("--store", "store.db"), "relative path"),
        ((), "nothing to set"),
    ],
)
def test_a_context_holds_no_password_and_no_relative_path(crossgate, arguments, words):
    said = crossgate("context", "set", "here", *arguments, status=2)
    assert words in said
    assert "secret" not in said
    assert not (crossgate.folder / "config").exists()


def test_a_broken_file_of_contexts_is_named(crossgate):
    path = crossgate.write("config/crossgate/contexts.yaml", "contexts: {a: {stor: x}}")
    assert str(path) in crossgate("context", "list", status=2)


def editor(crossgate, *steps):
    """An editor that does one step of Python with `text` each time it is opened, and keeps what it saw."""
    script = crossgate.write(
        "editor.py",
        "import pathlib, sys\n"
        "path, folder = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent\n"
        "number = len(list(folder.glob('seen-*')))\n"
        "text = path.read_text()\n"
        "(folder / f'seen-{number}').write_text(text)\n"
        f"steps = {steps!r}\n"
        "names = {'text': text}\n"
        "exec(steps[min(number, len(steps) - 1)], names)\n"
        "path.write_text(names['text'])\n",
    )
    return {"environment": {"VISUAL": "", "EDITOR": f"{sys.executable} {script}"}}


def kept(crossgate):
    return [*crossgate.folder.glob("crossgate-*.yaml")]


def test_edit_changes_a_document_in_an_editor(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7') + '# noted\\n'")
    said = crossgate("edit", "digits", "-m", "by hand", **saved)
    assert "~ traffic.split.canary: 5 -> 7" in said
    assert "(by anna: by hand)" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 7
    assert kept(crossgate) == []


def test_edit_that_changes_nothing_writes_nothing(crossgate, digits):
    assert "unchanged: digits" in crossgate("edit", "digits", **editor(crossgate, "pass"))
    assert kept(crossgate) == []


def test_edit_opens_again_with_what_is_wrong_on_top(crossgate, digits):
    steps = (
        "text = text.replace('canary: 5', 'canary: {')",
        "text = text.replace('canary: {', 'canary: x')",
        "text = text.replace('canary: x', 'canary: 9')",
    )
    crossgate("edit", "digits", **editor(crossgate, *steps))
    assert there(crossgate)["traffic"]["split"]["canary"] == 9
    seen = [(crossgate.folder / f"seen-{i}").read_text() for i in range(3)]
    assert "# !" not in seen[0]
    assert re.search(r"^# ! line \d+", seen[1], re.MULTILINE)
    assert "# ! digits: traffic.split.canary: expected a whole number" in seen[2]
    assert "line" not in seen[2].partition("canary")[0].replace("Lines", "")


def test_edit_that_gives_up_keeps_what_was_typed(crossgate, digits):
    steps = ("text = text.replace('canary: 5', 'canary: {')", "pass")
    said = crossgate("edit", "digits", status=1, **editor(crossgate, *steps))
    assert "saved as it was" in said
    (path,) = kept(crossgate)
    assert str(path) in said
    assert "canary: {" in path.read_text()


def test_an_editor_that_fails_is_named(crossgate, digits):
    for command in ("false", "/no/such/editor"):
        environment = {"VISUAL": command}
        assert f"the editor '{command}'" in crossgate("edit", "digits", status=1, environment=environment)
    assert there(crossgate) == yaml.safe_load(FILE)


def test_edit_shows_what_somebody_changed_meanwhile_and_puts_both_together(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7')", "text += '\\n'")
    with crossgate.interfering(by_bert(retry="never")):
        crossgate("edit", "digits", **saved)
    assert there(crossgate)["traffic"]["split"]["canary"] == 7
    assert there(crossgate)["retry"] == "never"
    seen = (crossgate.folder / "seen-1").read_text()
    assert "# ! digits was changed meanwhile" in seen
    assert "set by bert" in seen
    assert "\nretry: never" in seen


def test_edit_of_the_same_field_is_not_written_unless_it_is_saved_again(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7')", "pass")
    theirs = {"traffic": {"split": {"stable": 95, "canary": 6}}}
    with crossgate.interfering(by_bert(**theirs)):
        said = crossgate("edit", "digits", status=3, **saved)
    assert "~ traffic.split.canary: 5 -> 6" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 6
    assert "canary: 7" in kept(crossgate)[0].read_text()
