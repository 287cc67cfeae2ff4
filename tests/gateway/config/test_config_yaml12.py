from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.errors import DocumentInvalid
from gateway.config.validation import validate
from gateway.config.yaml12 import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("010", "010"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ('"1"', "1"),
        ("'true'", "true"),
        ("|\n  1", "1"),
        ("!!str 1", "1"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("0", 0),
        ("-7", -7),
        ("0x1F", 31),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("-.inf", -math.inf),
        ("", {}),
        ("# nothing\n", {}),
        ("[1, a]", [1, "a"]),
    ],
)
def test_scalar_is_what_the_core_schema_says(text, value):
    read = parse_yaml(text)

    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_a_number():
    assert math.isnan(parse_yaml(".NaN"))


def test_keys_are_the_text_as_written():
    keys = ["no", "010", "1.10", "1", "null", "true", "2024-01-01", "<<", ""]
    text = "".join(f"{key}: 1\n" if key else '"": 1\n' for key in keys)

    assert list(parse_yaml(text)) == keys


def test_alias_is_the_value_of_its_anchor():
    assert parse_yaml("a: &x {b: [1]}\nc: *x") == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "path", "fragment"),
    [
        ("labels: {stable: 1}", "labels.stable", "got 1; put it in quotes"),
        ("labels: {stable: 1.10}", "labels.stable", "got 1.1; put it in quotes"),
        ("labels: {stable: 010}", "labels.stable", 'got "010"'),
        ("labels: {stable: no}", "labels.stable", 'got "no"'),
        ("versions: {1.10: {source: s3://b/m}}", 'versions["1.10"]', "expected a version"),
        ("required: yes", "required", 'expected true or false, got "yes"'),
        ("batching: {max_batch_size: 010}", "batching.max_batch_size", 'got "010"'),
        ("labels:", "labels", "expected a mapping, got nothing (null)"),
    ],
)
def test_trap_is_an_error_where_it_would_change_the_meaning(text, path, fragment):
    with pytest.raises(DocumentInvalid) as caught:
        validate(parse_yaml(text), model="m")

    (problem,) = caught.value.problems
    assert problem.path == path
    assert fragment in problem.message


def test_unquoted_version_key_is_the_version():
    assert list(validate(parse_yaml("versions: {1: {source: s3://b/m}}"), model="m").versions) == ["1"]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "a: 1\nb: {c: 1,\n  c: 2}\na: 3",
            [
                'line 3, column 3: the key "c" is already on line 2',
                'line 4, column 1: the key "a" is already on line 1',
            ],
        ),
        ("? [1]\n: 2", ["line 1, column 3: expected text as a key"]),
        ("a: !!python/object:os.system {}", ["line 1, column 4: tags such as"]),
        ("a: !!bool yes", ["line 1, column 4: tags such as"]),
        ("a: !!int '3'", ["line 1, column 4: tags such as"]),
        ("a: &x [*x]", ["line 1, column 4: an alias stands inside of what it refers to"]),
        ("a: *x", ["line 1, column 4: found undefined alias 'x'"]),
        ("a: {b", ["line 1, column 6: while parsing a flow mapping, expected ',' or '}', but got"]),
        ("a: 1\n---\nb: 2", ["line 2, column 1: expected a single document in the stream"]),
        ("a:\n\t- 1", ["line 2, column 1: while scanning for the next token, found character '\\t'"]),
        ("a\nb: \x07", ["line 2, column 4: special characters are not allowed"]),
        ('"\\U00110000"', ["chr() arg not in range"]),
        pytest.param("[" * 600, ["is nested too deeply"], marks=pytest.mark.slow),
    ],
)
def test_text_that_is_no_document_is_refused_with_its_place(text, messages):
    with pytest.raises(DocumentInvalid) as caught:
        parse_yaml(text)

    problems = caught.value.problems
    assert len(problems) == len(messages)
    for problem, message in zip(problems, messages, strict=True):
        assert str(problem).startswith(message)


def test_number_of_many_digits_costs_nothing():
    assert parse_yaml("9" * 10_000) == math.inf


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab01:-?[]{}&*!|>'\"%@`#,\n\t \\x\u0085\ufeff\ud800"), max_size=30))
@pytest.mark.slow
def test_arbitrary_text_is_data_or_invalid(text):
    try:
        data = parse_yaml(text)
    except DocumentInvalid as error:
        outcome = error
    else:
        outcome = data
    assert isinstance(outcome, (DocumentInvalid, dict, list, str, int, float, bool, type(None)))
