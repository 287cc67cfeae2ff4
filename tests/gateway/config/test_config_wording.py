from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta, inspect

from gateway.config.wording import accepts, did_you_mean, expectation, join, listed, quote, shown


@pytest.mark.parametrize(
    ("path", "key", "joined"),
    [
        ("", "labels", "labels"),
        ("labels", "a-b_1", "labels.a-b_1"),
        ("labels", "a.b", 'labels["a.b"]'),
        ("labels", "", 'labels[""]'),
        ("", "a\n", '["a\\n"]'),
    ],
)
def test_path_quotes_what_is_not_a_plain_word(path, key, joined):
    assert join(path, key) == joined


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("grün", '"grün"'), ("\x1b[0m", '"\\u001b[0m"'), ("x" * 61, f'"{"x" * 60}..."')],
)
def test_text_is_shown_on_one_printable_line(text, quoted):
    assert quote(text) == quoted


def test_long_lists_are_cut():
    assert listed("abc", most=2) == '"a", "b" and 1 more'


def test_nearest_name_ignores_case_and_is_left_out_where_none_is_near():
    assert did_you_mean("LABLES", ["labels", "traffic"]) == '; did you mean "labels"?'
    assert did_you_mean("q", ["labels", "traffic"]) == ""


def test_value_of_another_type_is_shown_by_its_type():
    assert shown(b"") == "a value of type bytes"


def test_annotated_scalar_is_accepted_by_its_type():
    kind = inspect.type_info(Annotated[int, Meta(ge=1, description="a count")])

    assert [accepts(kind, value) for value in (0, 1, True, "1")] == [False, True, False, False]
    assert expectation(kind) == "a count"


def test_type_that_no_document_has_is_a_bug():
    with pytest.raises(NotImplementedError, match="documents have no"):
        expectation(inspect.type_info(bytes))
