"""Metadata that an operator gives."""

from __future__ import annotations

import pytest
import typer

from crossgate.cli.metadata import read_metadata, token_metadata


def test_keys_are_lower_case_and_values_as_they_are():
    assert read_metadata(["X-User=Anna B=1", "empty=", "x-user=bert"]) == {"x-user": "bert", "empty": ""}
    assert read_metadata(["X-User=Anna B=1"]) == {"x-user": "Anna B=1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not KEY=VALUE"),
        ("=x", "is not KEY=VALUE"),
        ("a b=1", "a key has letters, digits and _.- only"),
        ("grpc-timeout=1S", "grpc-"),
        ("trace-bin=1", "-bin"),
        ("x-user=ärger", "printable ASCII"),
    ],
)
def test_what_grpc_would_not_carry_is_refused(capsys, text, words):
    with pytest.raises(typer.Exit):
        read_metadata([text])
    said = capsys.readouterr().err
    assert said.startswith(f"error: --metadata {text!r}")
    assert words in said


def test_the_token_of_the_environment_is_shown(monkeypatch, capsys):
    monkeypatch.delenv("CROSSGATE_TOKEN", raising=False)
    assert token_metadata() == {}
    monkeypatch.setenv("CROSSGATE_TOKEN", "abc")
    assert token_metadata() == {"authorization": "Bearer abc"}
    monkeypatch.setenv("CROSSGATE_TOKEN", "abc\n")
    with pytest.raises(typer.Exit):
        token_metadata()
    said = capsys.readouterr().err
    assert "line break" in said
    assert "abc" not in said
