"""Paths into documents, and what differs between two."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath

import pytest
from hypothesis import given

from gateway.config.difference import MISSING, Difference, canonical, differences, make_patch, same
from gateway.config.errors import DocumentInvalid
from gateway.config.kinds import type_of
from gateway.config.merge import merge
from gateway.config.patch import merge_patch
from gateway.config.path import PathInvalid, parse_path, show_path, type_at, with_value, without
from gateway.config.schema import read_value

sys.path.append(str(FilePath(__file__).parent))  # the module beside this file

from document_strategies import MODELS

MODEL = type_of("model")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("traffic.split.canary", ("traffic", "split", "canary")),
        ("instances[0].count", ("instances", 0, "count")),
        ("versions.3.source", ("versions", "3", "source")),
        ('labels["a.b"]', ("labels", "a.b")),
        ('options["a\\"b]"].x', ("options", 'a"b]', "x")),
    ],
)
def test_paths_are_read_and_shown_alike(text, path):
    assert parse_path(text) == path
    assert parse_path(show_path(path)) == path


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", "a[", "a[-1]", "a[x]", "a b", "a]", '["a', "[0]x", "ab.[0]"]
)
def test_what_is_no_path_says_what_is_one(text):
    with pytest.raises(PathInvalid, match=r"expected a path such as traffic\.split\.canary"):
        parse_path(text)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("trafic.split", 'trafic: is not a known key; did you mean "traffic"?'),
        ("traffic.spilt.a", 'traffic.spilt: is not a known key; did you mean "split"?'),
        ("zzz", "the keys here are model"),
        ("retry.x", "retry is a single value"),
        ("instances.count", "instances is a list: expected an index such as instances[0]"),
        ("labels[0]", "labels is a mapping: expected a key"),
        ("traffic[0]", "traffic is a mapping; its keys are sticky"),
    ],
)
def test_a_mistyped_path_names_the_near_key(path, words):
    with pytest.raises(PathInvalid) as invalid:
        type_at(MODEL, parse_path(path))
    assert words in str(invalid.value)


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("traffic.split.canary", "10", 10),
        ("labels.canary", "2", "2"),
        ("labels.canary", '"2"', "2"),
        ("required", "true", True),
        ("batching.batchable", "true", True),
        ("batching.batchable", "auto", "auto"),
        ("trace.ratio", "0.5", 0.5),
        ("trace.ratio", "null", None),
        ("instances[0].options.x", "4", 4),
        ("instances[0].options.x", "'4'", "4"),
        ("instances[0].options.x", "fast", "fast"),
        ("batching", "{max_batch_size: 8}", {"max_batch_size": 8}),
        ("version_policy.specific", '["1", "2"]', ["1", "2"]),
        ("batching.max_batch_size", "many", "many"),
    ],
)
def test_values_have_the_type_that_the_path_takes(path, text, value):
    assert same(read_value(type_at(MODEL, parse_path(path)), text), value)


def test_a_value_that_is_no_yaml_is_refused_where_a_mapping_is_meant():
    with pytest.raises(DocumentInvalid, match="line 1"):
        read_value(type_at(MODEL, parse_path("batching")), "{max_batch_size: ")


def test_setting_makes_what_is_on_the_way_and_changes_no_copy():
    data = {"model": "a", "instances": [{"count": 1}]}
    before = canonical(data)
    assert with_value(data, ("traffic", "split", "x"), 1)["traffic"] == {"split": {"x": 1}}
    assert with_value(data, ("instances", 0, "count"), 2)["instances"] == [{"count": 2}]
    assert with_value(data, ("instances", 1, "count"), 2)["instances"] == [{"count": 1}, {"count": 2}]
    assert canonical(data) == before


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("instances", 5), "the list has 1 items"),
        (("model", "x"), 'model: is "a", not a mapping'),
        (("model", 0), 'model: is "a", not a list'),
    ],
)
def test_what_cannot_be_set_says_why(path, words):
    with pytest.raises(PathInvalid) as invalid:
        with_value({"model": "a", "instances": [{}]}, path, 1)
    assert words in str(invalid.value)


def test_removing_takes_empty_mappings_away():
    data = {"model": "a", "labels": {"x": "1", "y": "2"}, "trace": {"ratio": 1}, "inputs": [{"name": "i"}]}
    assert without(data, ("labels", "x"))["labels"] == {"y": "2"}
    assert without(data, ("trace", "ratio")).keys() == {"model", "labels", "inputs"}
    assert "inputs" not in without(data, ("inputs", 0))
    for path, words in ((("labels", "z"), 'there is "x", "y"'), (("label",), 'did you mean "labels"')):
        with pytest.raises(PathInvalid, match="is not there") as invalid:
            without(data, path)
        assert words in str(invalid.value)


def test_differences_are_by_path():
    before = {"a": 1, "b": {"c": [1, 2], "d.e": True}, "l": [{"x": 1}, {"y": 2}]}
    after = {"a": 1.0, "b": {"c": [1, 2, 3]}, "l": [{"x": 5}, {"y": 2}], "n": None}
    assert differences(before, after) == (
        Difference("a", 1, 1.0),
        Difference("b.c[2]", MISSING, 3),
        Difference('b["d.e"]', True, MISSING),
        Difference("l[0].x", 1, 5),
        Difference("n", MISSING, None),
    )
    assert [str(each) for each in differences({"a": 1, "b": 2}, {"b": 3, "c": [1]})] == [
        "- a: 1",
        "~ b: 2 -> 3",
        "+ c: [1]",
    ]
    assert differences(before, before) == ()
    assert str(differences({"a": "x"}, {"a": "\x9b2J\x1b"})[0]) == '~ a: "x" -> "\\u009b2J\\u001b"'


@given(MODELS, MODELS)
def test_a_patch_makes_the_other_document_but_for_nulls(before, after):
    patched = merge_patch(before, make_patch(before, after))
    assert same(_without_nulls(patched), _without_nulls(after))


def _without_nulls(data):
    if isinstance(data, dict):
        return {key: _without_nulls(value) for key, value in data.items() if value is not None}
    return data


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "document", "overlaps"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, ()),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, ()),
        ({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}, ()),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}, ("a",)),
        (
            {"a": {"b": 1, "c": 1}},
            {"a": {"b": 2, "c": 1}},
            {"a": {"b": 1, "c": 2}},
            {"a": {"b": 2, "c": 2}},
            (),
        ),
        ({"a": {"b": 1}}, {}, {"a": {"b": 1}, "c": 1}, {"c": 1}, ()),
        ({"a": {"b": 1}}, {}, {"a": {"b": 2}}, {"a": {"b": 2}}, ("a",)),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3]}, ("a",)),
        ({}, {"a": {"b": 1}}, {"a": {"c": 1}}, {"a": {"c": 1, "b": 1}}, ()),
        (None, {"a": 1}, {"b": 1}, {"b": 1, "a": 1}, ()),
        ({"a": 1}, None, {"a": 1}, None, ()),
        ({"a": 1}, None, {"a": 2}, {"a": 2}, ("document",)),
        ({"a": 1}, {"a": 2}, None, None, ("document",)),
        ({"a": 1}, {"a": True}, {"a": 1}, {"a": True}, ()),
    ],
)
def test_two_changes_merge_where_they_are_of_different_fields(base, ours, theirs, document, overlaps):
    merged = merge(base, ours, theirs)
    assert same(merged.document, document)
    assert merged.overlaps == overlaps


@given(MODELS, MODELS, MODELS)
def test_a_merge_without_overlaps_has_both_changes(base, ours, theirs):
    merged = merge(base, ours, theirs)
    assert bool(merge(base, theirs, ours).overlaps) == bool(merged.overlaps)
    if not merged.overlaps:
        # Whoever looks from either side sees nothing of it undone.
        assert same(merge(base, ours, merged.document).document, merged.document)
        assert same(merge(base, theirs, merged.document).document, merged.document)
