"""What a plan says of a change."""

from __future__ import annotations

import pytest

from crossgate.cli.documents_plan import Cluster, Loading, loading_of, plan_lines, shares
from gateway.config.registration import Registration
from gateway.config.status import Presence, SlotReport
from gateway.config.validation import validate

DIGEST = f"sha256:{'a' * 64}"
ON_CPU = {"runtime": "onnxruntime", "device": "cpu"}


def model(**fields):
    data = {"model": "digits", "versions": {"1": {"source": "file:///m1"}, "2": {"source": "file:///m2"}}}
    return validate(data | fields)


def version(number, **fields):
    return {str(number): {"source": f"file:///m{number}"} | fields}


@pytest.mark.parametrize(
    ("before", "after", "loading"),
    [
        (None, model(), Loading(loads=("1", "2"))),
        (model(), None, Loading(unloads=("1", "2"))),
        (model(), model(retry="never"), Loading()),
        (model(), model(versions=version(1) | version(3)), Loading(loads=("3",), unloads=("2",))),
        (
            model(),
            model(versions=version(1) | version(2, digest="sha256:" + "a" * 64)),
            Loading(reloads=("2",)),
        ),
        (
            model(),
            model(instances=[{"runtime": "onnxruntime", "device": "cpu"}]),
            Loading(reloads=("1", "2")),
        ),
        (model(), model(batching={"batchable": False}), Loading(reloads=("1", "2"))),
        (model(), model(batching={"max_batch_size": 8}), Loading()),
        (model(), model(batching={"max_batch_size": 1}), Loading(reloads=("1", "2"))),
        (model(), model(labels={"stable": "2"}), Loading(routed=("2",))),
        (model(), model(load={"mode": "on_demand"}), Loading(unloads=("1", "2"))),
    ],
)
def test_what_loads_follows_from_the_documents(before, after, loading):
    assert loading_of(before, after) == loading


def test_shares_are_of_versions_whatever_they_are_called():
    split = {"stable": 60, "canary": 20, "2": 20}
    document = model(labels={"stable": "1", "canary": "2"}, traffic={"split": split})
    assert shares(document) == {"version 1": 60.0, "version 2": 40.0}
    assert shares(model()) == {"the latest ready version": 100.0}


def slot(node, name, device, **fields):
    return Registration(node, name, device, 4, "unix:/x", 1, "1", 1, 1, runtimes=("onnxruntime",), **fields)


def test_a_plan_names_nodes_slots_and_memory(tmp_path):
    (tmp_path / "m.onnx").write_bytes(bytes(3 << 20))
    after = model(
        versions={"1": {"source": f"file://{tmp_path}/m.onnx"}, "2": {"source": "s3://bucket/m2.zip"}},
        instances=[{"runtime": "onnxruntime", "device": "cuda:0", "count": 2, "where": {"node": "gpu-*"}}],
    )
    own = (SlotReport("cpu", "cpu", 2),)
    present = Presence("one", "elsewhere", "1", "a:1", "a:2", 1, "now", slots=own, runtimes=("onnxruntime",))
    nodes = {
        "gpu-1": [slot("gpu-1", "cpu", "cpu"), slot("gpu-1", "cuda:0", "cuda:0")],
        "gpu-2": [slot("gpu-2", "cpu", "cpu")],
        "web": [slot("web", "cpu", "cpu")],
    }
    cluster = Cluster(nodes, (present,))
    first, second, traffic = plan_lines(None, after, cluster)
    assert "loads version 1" in first
    assert "on node gpu-1, slot cuda:0 (onnxruntime, 2 at once)" in first
    assert "not on node gpu-2 (no slot here is cuda:0; there are cpu)" in first
    assert "not on node web (no instance is for this node, web; they are for gpu-*)" in first
    assert "not on node elsewhere (no instance is for this node, elsewhere; they are for gpu-*)" in first
    assert "about 6.0 MiB on each slot" in first
    assert "memory unknown from here" in second
    assert traffic == "traffic: the latest ready version 0 % -> 100 %"


def test_a_plan_without_gateways_says_so():
    lines = plan_lines(None, model(), Cluster())
    assert "nowhere: no gateway with slots is live" in lines[0]


def test_a_plan_of_a_policy_says_that_nothing_moves():
    lines = plan_lines(model(), model(retry="never"), Cluster())
    assert lines == ("takes effect at once, loads nothing and moves no traffic",)


def test_a_plan_shows_which_traffic_moves():
    labels = {"stable": "1", "canary": "2"}
    rule = {"when": {"metadata": {"x-cohort": "beta"}}, "to": "canary"}
    before = model(labels=labels, traffic={"split": {"stable": 95, "canary": 5}})
    after = model(labels=labels, traffic={"split": {"stable": 90, "canary": 10}, "rules": [rule]})
    assert plan_lines(before, after, Cluster()) == (
        "traffic: version 1 95 % -> 90 %, version 2 5 % -> 10 %",
        "traffic: rules change, which decide before the split",
    )
