from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.routing.explanation import explain
from gateway.routing.table import ModelRoute


def route(*ready, **rest):
    return ModelRoute("m", 7, {v: SimpleNamespace(version=v) for v in ready}, **rest)


@pytest.mark.parametrize(
    ("of", "version", "metadata", "by", "ways"),
    [
        (route("1", "2", split={"2": 1}), "1", {}, "version", [("1", 1.0)]),
        (route("1", split={"1": 1}, labels={"stable": "1"}), "stable", {}, "label", [("1", 1.0)]),
        (route("1", split={"1": 1}), "", {"x": "y"}, "only", [("1", 1.0)]),
        (route("1", "2", split={"1": 3, "2": 1}), "", {}, "weights", [("1", 0.75), ("2", 0.25)]),
        (route("1", "2", split={"1": 1}, rules=[({"a": "b"}, "2")]), "", {"a": "b"}, "rule", [("2", 1.0)]),
        (route("1", "2", split={"1": 1}, rules=[({"a": "b"}, "2")]), "", {"a": "c"}, "only", [("1", 1.0)]),
        (route("1", "2", split={"1": 3, "2": 1}, sticky="u"), "", {}, "weights", [("1", 0.75), ("2", 0.25)]),
    ],
)
def test_each_way_of_choosing_is_named_with_its_shares(of, version, metadata, by, ways):
    found = explain(of, version, metadata)
    assert found.by == by
    assert [(way.version, way.share) for way in found.ways] == ways
    assert all(way.error is None for way in found.ways)


def test_a_rule_is_named_by_its_position():
    of = route("1", "2", split={"1": 1}, rules=[({"a": "b"}, "1"), ({"c": "d"}, "2")])
    assert explain(of, "", {"c": "d"}).rule == 1


def test_a_sticky_key_leads_to_one_version_and_is_shown():
    of = route("1", "2", split={"1": 1, "2": 1}, sticky="x-user")
    found = explain(of, "", {"x-user": "anna"})
    assert (found.by, found.sticky_value) == ("sticky", "anna")
    (way,) = found.ways
    assert way.version == of.choose("", {"x-user": "anna"}, 0.99).version


@pytest.mark.parametrize(
    ("of", "version", "by"),
    [
        (route(waiting={"1": "it is loading"}), "", "nothing"),
        (route("1", split={"1": 1}), "9", "version"),
        (route("1", split={"1": 1}, labels={"next": "2"}, waiting={"2": "no file"}), "next", "label"),
        (route("1", split={"1": 1, "2": 1}, waiting={"2": "quarantined"}), "", "weights"),
    ],
)
def test_errors_are_those_that_the_data_plane_answers(of, version, by):
    found = explain(of, version, {})
    assert found.by == by
    failed = [way for way in found.ways if way.error is not None]
    assert len(failed) == 1
    with pytest.raises(type(failed[0].error)) as caught:
        of.choose(version, {}, 0.99)
    assert str(caught.value) == str(failed[0].error)


versions = st.sampled_from("123")
value = st.sampled_from("xy")
metadata = st.fixed_dictionaries({}, optional={"a": value, "b": value})
conditions = st.one_of(st.fixed_dictionaries({"a": value}), st.fixed_dictionaries({"b": value}))


@given(
    ready=st.sets(versions),
    split=st.dictionaries(versions, st.integers(1, 9)),
    rules=st.lists(st.tuples(conditions, versions), max_size=2),
    labels=st.dictionaries(st.sampled_from(["stable", "next"]), versions),
    sticky=st.one_of(st.none(), st.just("a")),
    asked=st.sampled_from(["", "1", "2", "stable", "nothing"]),
    sent=metadata,
    draw=st.floats(0, 1, exclude_max=True),
)
def test_every_choice_of_the_data_plane_is_among_the_explained_ways(
    ready, split, rules, labels, sticky, asked, sent, draw
):
    of = route(*ready, split=split, rules=rules, labels=labels, sticky=sticky, waiting={"3": "it is loading"})
    found = explain(of, asked, sent)
    assert sum(way.share for way in found.ways) == pytest.approx(1)
    try:
        met = of.choose(asked, sent, draw).version
    except GatewayError as error:
        met = str(error)
    assert met in {str(way.error) if way.servable is None else way.version for way in found.ways}
