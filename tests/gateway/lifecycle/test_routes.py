from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.config.validation import validate
from gateway.lifecycle.desired import DesiredModel, DesiredVersion
from gateway.lifecycle.record import VersionRecord
from gateway.lifecycle.routes import ServedModel, build_route
from gateway.routing.table import ModelNotReady, UnknownVersion


def desired(data, *versions, revision=1):
    found = {v: DesiredVersion(v, f"/m/{v}/model.onnx", "f") for v in versions}
    return DesiredModel(validate(data, model="m", versions=versions), found, revision)


def served(model, **ready):
    """A model whose versions are ready (`v1=True`) or still loading (`v1=False`)."""
    it = ServedModel("m", model)
    for name, there in ready.items():
        version = name.removeprefix("v")
        record = VersionRecord("m", version, f"key-{version}", model.versions[version])
        record.servable = SimpleNamespace(version=version) if there else None
        it.records[record.key] = record
        it.wanted[version] = record.key
    return it


def chosen(route, version="", **metadata):
    return route.choose(version, metadata, 0.5).version


def test_latest_ready_version_takes_what_names_none():
    assert chosen(build_route(served(desired({}, "1", "2"), v1=True, v2=True))) == "2"
    assert chosen(build_route(served(desired({}, "1", "2"), v1=True, v2=False))) == "1"


def test_routing_waits_until_every_version_it_names_is_ready():
    split = {"traffic": {"split": {"1": 50, "2": 50}}}
    it = served(desired({"version_policy": {"all": True}}, "1", "2"), v1=True, v2=False)
    assert chosen(build_route(it)) == "1"
    it.desired = desired({**split, "version_policy": {"all": True}}, "1", "2", revision=2)
    assert chosen(build_route(it)) == "1"
    it.records["key-2"].servable = SimpleNamespace(version="2")
    assert dict(build_route(it).split) == {"1": 50, "2": 50}


def test_label_whose_version_is_ready_serves_before_the_first_routing_is_complete():
    model = desired({"labels": {"stable": "1", "next": "2"}}, "1", "2")
    route = build_route(served(model, v1=True, v2=False))
    assert chosen(route, "stable") == "1"
    with pytest.raises(ModelNotReady, match="version 2 is not ready"):
        route.choose("next", {}, 0.5)
    with pytest.raises(ModelNotReady):
        route.choose("", {}, 0.5)


def test_unknown_label_names_what_exists():
    route = build_route(served(desired({"labels": {"stable": "1"}}, "1"), v1=True))
    with pytest.raises(UnknownVersion, match=r"'stabel'; there are 1, stable"):
        route.choose("stabel", {}, 0.5)
