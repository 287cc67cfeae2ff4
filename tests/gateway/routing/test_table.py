from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.document import Rule, Traffic, When
from gateway.routing.table import (
    ModelNotReady,
    ModelRoute,
    RouteTable,
    UnknownModel,
    UnknownVersion,
    rendezvous,
    resolve_split,
    weighted,
)


def route(*ready, **changes):
    """A route whose servables are named like their versions."""
    fields = {"ready": {version: f"v{version}" for version in ready}, "split": dict.fromkeys(ready, 1.0)}
    return ModelRoute("m", 1, **{**fields, **changes})


CANARY = route(
    "1",
    "2",
    "3",
    labels={"stable": "2", "canary": "3"},
    rules=(({"tenant": "a", "stage": "test"}, "3"), ({"tenant": "b"}, "1")),
    split={"2": 90, "3": 10},
    sticky="user",
)


@pytest.mark.parametrize(
    ("version", "metadata", "draw", "expected"),
    [
        ("1", {}, 0.0, "v1"),
        ("stable", {}, 0.0, "v2"),
        ("canary", {}, 0.0, "v3"),
        ("1", {"tenant": "b"}, 0.0, "v1"),
        ("stable", {"tenant": "b"}, 0.0, "v2"),
        ("", {"tenant": "b"}, 0.99, "v1"),
        ("", {"tenant": "a", "stage": "test"}, 0.0, "v3"),
        ("", {"tenant": "a"}, 0.0, "v2"),
        ("", {"tenant": "A", "stage": "test"}, 0.0, "v2"),
        ("", {}, 0.0, "v2"),
        ("", {}, 0.899, "v2"),
        ("", {}, 0.901, "v3"),
        ("", {}, 0.999999, "v3"),
    ],
)
def test_a_request_goes_to(version, metadata, draw, expected):
    assert CANARY.choose(version, metadata, draw) == expected


def test_the_first_rule_that_matches_wins():
    both = route("1", "2", rules=(({"a": "1"}, "1"), ({"b": "1"}, "2")))
    assert both.choose("", {"a": "1", "b": "1"}, 0) == "v1"


def test_the_same_key_goes_the_same_way_whatever_is_drawn():
    for user in map(str, range(20)):
        assert len({CANARY.choose("", {"user": user}, draw / 10) for draw in range(10)}) == 1


def test_without_a_sticky_key_the_way_is_drawn():
    assert {CANARY.choose("", {"other": "x"}, draw) for draw in (0.0, 0.95)} == {"v2", "v3"}


@pytest.mark.parametrize(
    ("of", "version", "error", "message"),
    [
        (route("1", "2"), "7", UnknownVersion, "model m has no version or label '7'; there are 1, 2"),
        (
            CANARY,
            "prod",
            UnknownVersion,
            "model m has no version or label 'prod'; there are 1, 2, 3, canary, stable",
        ),
        (route("10", "9"), "x", UnknownVersion, "model m has no version or label 'x'; there are 9, 10"),
        (route(), "1", UnknownVersion, "model m has no version or label '1'; there are none"),
        (
            route("1", waiting={"2": "it is loading"}),
            "2",
            ModelNotReady,
            "model m version 2 is not ready: it is loading",
        ),
        (
            route("1", waiting={"2": "it is loading"}, labels={"next": "2"}),
            "next",
            ModelNotReady,
            "model m version 2 is not ready: it is loading",
        ),
        (route(), "", ModelNotReady, "model m is not ready: no version is loaded"),
        (
            route(waiting={"1": "no file", "2": "it is loading"}),
            "",
            ModelNotReady,
            "model m is not ready: version 1: no file; version 2: it is loading",
        ),
        (route(problem="bad document"), "", ModelNotReady, "model m is not ready: bad document"),
        (route(problem="bad document"), "3", ModelNotReady, "model m version 3 is not ready: bad document"),
        (
            route("1", split={"2": 1}, waiting={"2": "quarantined"}),
            "",
            ModelNotReady,
            "model m version 2 is not ready: quarantined",
        ),
    ],
)
def test_what_cannot_be_served_says_what_exists(of, version, error, message):
    with pytest.raises(error) as caught:
        of.choose(version, {}, 0.5)
    assert str(caught.value) == message


def test_an_unknown_model_names_those_there_are():
    table = RouteTable({"b": route("1"), "a": route("1")})
    assert table.find("a").model == "m"
    with pytest.raises(UnknownModel, match="unknown model 'c'; this gateway serves a, b"):
        table.find("c")
    with pytest.raises(UnknownModel, match="this gateway serves no model"):
        RouteTable().find("c")


def test_only_twenty_models_are_named():
    with pytest.raises(UnknownModel) as caught:
        RouteTable({f"m{i:03}": route() for i in range(50)}).find("x")
    assert str(caught.value).count(",") == 19


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (route("1"), "v1"),
        (route("1", "2"), None),
        (CANARY, None),
        (route(), None),
        (route("1", rules=[({}, "1")]), None),
    ],
)
def test_the_only_servable(of, expected):
    assert of.only == expected


@pytest.mark.parametrize(
    ("split", "labels", "ready", "expected"),
    [
        ({}, {}, ["9", "10"], {"10": 1.0}),
        ({}, {}, [], {}),
        ({"1": 3, "2": 1}, {}, ["1", "2"], {"1": 3.0, "2": 1.0}),
        ({"stable": 3, "1": 1}, {"stable": "1"}, ["1"], {"1": 4.0}),
        ({"stable": 3, "canary": 0}, {"stable": "1", "canary": "2"}, ["1"], {"1": 3.0}),
    ],
)
def test_the_split_in_versions(split, labels, ready, expected):
    rule = Rule(When({"a": "b"}), "1")
    assert resolve_split(Traffic(split=split, rules=(rule,)), labels, ready) == expected


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_weights_are_the_shares_of_the_draw(weights):
    split = {str(i): float(weight) for i, weight in enumerate(weights)}
    steps = 1000
    counts = collections.Counter(weighted((i + 0.5) / steps, split) for i in range(steps))
    for version, weight in split.items():
        assert counts[version] == pytest.approx(steps * weight / sum(weights), abs=2)


@given(st.floats(0, 1, exclude_max=True))
def test_every_draw_has_a_version(draw):
    assert weighted(draw, {"1": 0.1, "2": 0.2, "3": 1e-9}) in {"1", "2", "3"}


KEYS = [f"user-{i}" for i in range(4000)]


def spread(split):
    return {key: rendezvous(key, split) for key in KEYS}


@pytest.mark.parametrize("split", [{"1": 1.0, "2": 1.0}, {"1": 9.0, "2": 1.0}, {"1": 5, "2": 3, "3": 2}])
def test_sticky_keys_are_spread_by_weight(split):
    counts = collections.Counter(spread(split).values())
    for version, weight in split.items():
        assert counts[version] / len(KEYS) == pytest.approx(weight / sum(split.values()), abs=0.03)


def test_only_as_many_keys_move_as_the_change_demands():
    before, after = spread({"1": 90, "2": 10}), spread({"1": 80, "2": 20})
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {before[key] for key in moved} == {"1"}  # none goes the other way
    assert len(moved) / len(KEYS) == pytest.approx(0.1, abs=0.03)


def test_a_version_that_goes_moves_only_its_own_keys():
    before, after = spread({"1": 1, "2": 1, "3": 1}), spread({"1": 1, "3": 1})
    assert all(before[key] == "2" for key in KEYS if before[key] != after[key])


def test_the_way_does_not_depend_on_the_order_of_the_split():
    assert spread({"1": 1, "2": 2}) == spread({"2": 2, "1": 1})


def test_the_largest_hash_is_a_number_too(monkeypatch):
    class Largest:
        def __init__(self, *_, **__):
            pass

        def digest(self):
            return b"\xff" * 8

    monkeypatch.setattr("gateway.routing.table.hashlib.blake2b", Largest)
    assert rendezvous("x", {"1": 1, "2": 3}) == "2"
