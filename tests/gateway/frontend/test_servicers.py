"""The RPCs that are not inference, from bytes to bytes."""

from __future__ import annotations

import pytest

from gateway.admission.access import Access
from gateway.errors import InvalidRequest, NotFound, NotReady
from gateway.frontend.servicers import EXTENSIONS, build_servicers
from gateway.telemetry.outcome import Outcome
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb

SERVICE = "/inference.GRPCInferenceService/"


def repository():
    raise AssertionError("nobody loads or unloads here")


@pytest.fixture
def ask(catalog, accounts):
    servicers = build_servicers(catalog, accounts, repository, Access())

    def call(method, **fields):
        request = getattr(pb, f"{method}Request")(**fields)
        answer = servicers.unary[SERVICE + method](request.SerializeToString(), {})
        return getattr(pb, f"{method}Response").FromString(answer)

    return call


@pytest.mark.parametrize(
    "method",
    [
        "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
        "ModelStatistics", "RepositoryIndex",
    ],
)  # fmt: skip
def test_garbage_is_malformed_and_the_method_named(catalog, accounts, method):
    with pytest.raises(InvalidRequest, match=f"{method}Request"):
        build_servicers(catalog, accounts, repository, Access()).unary[SERVICE + method](b"\xff", {})


def test_server_is_live_before_it_is_ready(ask, catalog):
    catalog.is_ready = False
    assert ask("ServerLive").live
    assert not ask("ServerReady").ready
    catalog.is_ready = True
    assert ask("ServerReady").ready


def test_server_metadata_has_the_extensions(ask):
    assert tuple(ask("ServerMetadata").extensions) == EXTENSIONS


@pytest.mark.parametrize(
    ("version", "ready"),
    [("", True), ("1", True), ("3", False), ("old", True), ("new", False)],
)
def test_known_version_or_label_is_ready_or_not(ask, version, ready):
    assert ask("ModelReady", name="m", version=version).ready is ready


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize(("name", "version"), [("n", ""), ("m", "4"), ("m", "label")])
def test_unknown_names_are_not_found(ask, method, name, version):
    with pytest.raises(NotFound):
        ask(method, name=name, version=version)


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig"])
def test_version_that_loads_cannot_be_described_yet(ask, method):
    with pytest.raises(NotReady):
        ask(method, name="m", version="3")


def test_metadata_lists_ready_versions_and_full_shapes(ask):
    metadata = ask("ModelMetadata", name="m")
    assert list(metadata.versions) == ["1", "2"]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("x", "FP32", [-1, 4]),
        ("t", "BYTES", [-1, -1]),
    ]


def test_config_of_a_batched_version(ask):
    config = ask("ModelConfig", name="m", version="1").config
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 8)
    assert [list(t.dims) for t in config.input] == [[4], [-1]]
    assert [t.data_type for t in config.input] == [config_pb.TYPE_FP32, config_pb.TYPE_STRING]
    assert [t.data_type for t in config.output] == [config_pb.TYPE_FP16]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 16


def test_config_of_an_unbatched_version(ask):
    config = ask("ModelConfig", name="m", version="2").config
    assert config.max_batch_size == 0
    assert [list(t.dims) for t in config.input] == [[-1, 4], [-1, -1]]
    assert not config.HasField("dynamic_batching")


def test_statistics_are_of_the_versions_asked_for(ask, accounts):
    accounts.open("other", "1")
    accounts.find("m", "no such version").record_failure(Outcome.NOT_FOUND, 1, rejected=True)
    accounts.find("m", "1").record_batch([2], [5], [90], 10, 20, 30, "full", "cpu", 1_700_000_000_000)

    def found(**fields):
        return [(stats.name, stats.version) for stats in ask("ModelStatistics", **fields).model_stats]

    assert found() == [("m", "1"), ("m", "2"), ("other", "1")]
    assert found(name="m") == [("m", "1"), ("m", "2")]
    assert found(name="m", version="2") == [("m", "2")]
    assert found(name="m", version="old") == [("m", "1")]
    (stats,) = ask("ModelStatistics", name="m", version="1").model_stats
    assert (stats.inference_count, stats.execution_count) == (2, 1)
    inference = stats.inference_stats
    durations = [inference.success, inference.queue, inference.compute_input, inference.compute_infer]
    assert [(d.count, d.ns) for d in durations] == [(1, 90), (1, 5), (1, 10), (1, 20)]
    assert [(row.batch_size, row.compute_output.ns) for row in stats.batch_stats] == [(2, 30)]
    assert [(use.type, use.id, use.byte_size) for use in stats.memory_usage] == [("CPU", 0, 4096)]
    (stats,) = ask("ModelStatistics", name="m", version="2").model_stats
    assert [(use.type, use.id, use.byte_size) for use in stats.memory_usage] == [("GPU", 1, 8192)]


def test_index_lists_all_or_only_ready_versions(ask):
    states = [(m.version, m.state, m.reason) for m in ask("RepositoryIndex").models]
    assert states == [("1", "READY", ""), ("2", "READY", ""), ("3", "LOADING", "it is LOADING")]
    assert [m.version for m in ask("RepositoryIndex", ready=True).models] == ["1", "2"]


def test_unknown_repository_is_not_found(ask):
    with pytest.raises(NotFound, match="'elsewhere'"):
        ask("RepositoryIndex", repository_name="elsewhere")
