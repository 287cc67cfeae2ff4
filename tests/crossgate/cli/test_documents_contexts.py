"""Which store and which gateway a command is about."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from crossgate.cli.documents_contexts import in_force, resolve_gateway
from crossgate.cli.gateways_address import GatewayAddress

sys.path.append(str(Path(__file__).parent))  # the module beside this file


pytestmark = pytest.mark.slow


def test_a_store_that_is_not_there_is_not_made_by_reading(crossgate):
    assert f"there is no store {crossgate.path}" in crossgate("get", status=1)
    assert not crossgate.path.exists()


def test_a_store_that_nobody_named_or_is_wrong_says_what_to_name(crossgate):
    assert "which store?" in crossgate("get", status=2, environment={"CROSSGATE_STORE": ""})
    assert "etcd" in crossgate("get", "--store", "etd://127.0.0.1:1", status=2)
    said = crossgate("get", "--store", "127.0.0.1:2379", status=2)
    assert 'did you mean "etcd://127.0.0.1:2379"?' in said


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
        (("--store", "etd://127.0.0.1:1"), "no store has the scheme"),
        ((), "nothing to set"),
    ],
)
def test_a_context_holds_no_password_and_no_wrong_store(crossgate, arguments, words):
    said = crossgate("context", "set", "here", *arguments, status=2)
    assert words in said
    assert "secret" not in said
    assert not (crossgate.folder / "config").exists()


@pytest.mark.parametrize("store", ["store.db", "./store.db", "sub/../store.db"])
def test_a_context_keeps_relative_paths_as_absolute_ones(crossgate, digits, monkeypatch, store):
    (crossgate.folder / "sub").mkdir()
    monkeypatch.chdir(crossgate.folder)
    crossgate("context", "set", "here", "--store", store, "--tls-ca", "ca.pem")
    monkeypatch.chdir("/")
    assert crossgate("get", "-o", "names", environment={"CROSSGATE_STORE": ""}) == "digits\n"
    shown = json.loads(crossgate("context", "show", "--json"))
    assert Path(shown["store"]).resolve() == crossgate.path.resolve()
    assert shown["tls_ca"] == str(crossgate.folder / "ca.pem")


def test_a_broken_file_of_contexts_is_named(crossgate):
    path = crossgate.write("config/crossgate/contexts.yaml", "contexts: {a: {stor: x}}")
    assert str(path) in crossgate("context", "list", status=2)
