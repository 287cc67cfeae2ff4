from __future__ import annotations

import msgspec
import pytest

from gateway.config.device import Device
from gateway.config.document import (
    Batching,
    Instance,
    Limits,
    ModelDocument,
    Pad,
    Priorities,
    Rule,
    Sticky,
    Traffic,
    VersionPolicy,
    VersionSource,
    When,
)


def test_document_with_only_a_name_has_every_default():
    document = ModelDocument(model="digits")

    assert document.schema == "crossgate/v1"
    assert document.version_policy == VersionPolicy(latest=1)
    assert document.batching == Batching(64, 0, 1024, "auto", {})
    assert document.limits == Limits(run_timeout_ms=60_000, max_request_bytes=None)
    assert document.retry == "auto"
    assert document.deadline.default_ms is None
    assert not document.required


def test_encoding_leaves_defaults_out():
    document = ModelDocument(model="digits", batching=Batching(max_batch_size=8))

    assert msgspec.to_builtins(document) == {"model": "digits", "batching": {"max_batch_size": 8}}


@pytest.mark.parametrize(
    ("policy", "selected"),
    [
        (VersionPolicy(latest=1), ("10",)),
        (VersionPolicy(latest=2), ("9", "10")),
        (VersionPolicy(latest=7), ("1", "9", "10")),
        (VersionPolicy(all=True), ("1", "9", "10")),
        (VersionPolicy(specific=("9", "3")), ("9",)),
    ],
)
def test_version_policy_orders_versions_as_numbers(policy, selected):
    assert policy.select(["10", "9", "1"]) == selected
    assert policy.select([]) == ()


def routed(**fields):
    traffic = Traffic(
        sticky=Sticky(metadata="x-user"),
        rules=(Rule(when=When(metadata={"x-cohort": "beta"}), to="canary"),),
        split={"stable": 95, "4": 5},
    )
    return ModelDocument(
        model="m", labels={"stable": "1", "canary": "2", "old": "3"}, traffic=traffic, **fields
    )


def test_named_versions_are_those_of_labels_rules_and_split():
    assert routed().named_versions() == {"1", "2", "3", "4"}
    assert ModelDocument(model="m").named_versions() == frozenset()


def test_target_resolves_by_label_or_is_the_version():
    assert [routed().resolve(target) for target in ("stable", "4")] == ["1", "4"]


def test_named_versions_of_a_directory_are_wanted_whatever_its_policy_says():
    assert routed().wanted_versions(["1", "2", "5", "10"]) == ("1", "2", "10")


def test_listed_versions_are_all_wanted():
    listed = {version: VersionSource(source="file:///m.zip") for version in ("10", "9")}

    assert ModelDocument(model="m", versions=listed).wanted_versions(["1"]) == ("9", "10")


def test_previous_routing_is_kept_under_a_new_policy():
    after = ModelDocument(model="m", batching=Batching(max_batch_size=2)).with_routing_of(routed())

    assert after.batching.max_batch_size == 2
    assert (after.labels, after.traffic) == (routed().labels, routed().traffic)


@pytest.mark.parametrize(
    ("priorities", "requested", "effective"),
    [
        (Priorities(levels=3, default=2), 1, 1),
        (Priorities(levels=3, default=2), 3, 3),
        (Priorities(levels=3, default=2), 0, 2),
        (Priorities(levels=3, default=2), 4, 2),
        (Priorities(), 1, 0),
    ],
)
def test_priority_outside_of_the_levels_is_the_default(priorities, requested, effective):
    assert priorities.effective(requested) == effective


@pytest.mark.parametrize(("length", "bucket"), [(0, 16), (16, 16), (17, 32), (33, None)])
def test_padding_goes_to_the_next_bucket(length, bucket):
    assert Pad(axis=1, buckets=(16, 32)).bucket_for(length) == bucket


def test_instance_knows_its_device():
    assert Instance(runtime="openvino", device="openvino:NPU").parsed_device == Device(
        "openvino", openvino="NPU"
    )
