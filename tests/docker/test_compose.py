"""compose.yaml and compose.gpu.yaml against the schema of the Compose Specification, and our own rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docker"
FILES = ("compose.yaml", "compose.gpu.yaml")
OURS = ("gateway", "worker-cpu", "worker-openvino")


def read(name):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def services():
    return read("compose.yaml")["services"]


@pytest.mark.parametrize("name", FILES)
def test_file_is_valid_by_the_schema_of_the_specification(name):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    check = jsonschema.validators.validator_for(schema, jsonschema.Draft7Validator)
    assert [error.message for error in check(schema).iter_errors(read(name))] == []
    broken = read(name)
    next(iter(broken["services"].values()))["imge"] = "x"
    assert list(check(schema).iter_errors(broken)) != []


def test_all_parts_are_there(services):
    wanted = {*OURS, "etcd", "otel-collector", "jaeger", "prometheus", "alertmanager", "grafana"}
    assert wanted == set(services)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_write_nowhere_but_to_what_they_are_given(services, name):
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["init"] is True
    assert service["tmpfs"] == ["/tmp:mode=1777"]


@pytest.mark.parametrize("name", OURS)
def test_models_are_at_the_same_place_in_gateway_and_workers(services, name):
    """A source of a document is a path, and it is read where the model is loaded."""
    assert "./models:/models:ro" in services[name]["volumes"]
    assert "sockets:/run/crossgate" in services[name]["volumes"]


def test_gateway_and_workers_are_one_node_on_one_store(services):
    environments = [services[name]["environment"] for name in OURS]
    assert {each["CROSSGATE_STORE"] for each in environments} == {"etcd://etcd:2379/crossgate"}
    nodes = {each.get("CROSSGATE_SERVE_NODE", each.get("CROSSGATE_WORKER_NODE")) for each in environments}
    assert nodes == {"compose"}


def test_everything_published_is_on_loopback(services):
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_image_of_others_has_a_version(services):
    for name, service in services.items():
        if name not in OURS:
            tag = service["image"].rpartition(":")[2]
            assert tag != "latest"
            assert any(character.isdigit() for character in tag)


def test_every_volume_is_declared_and_used(services):
    used = {
        source
        for service in services.values()
        for each in service.get("volumes", [])
        if not (source := each.split(":")[0]).startswith(".")
    }
    assert used == set(read("compose.yaml")["volumes"])


def test_every_file_of_this_folder_that_is_mounted_exists(services):
    mounted = [each.split(":")[0] for service in services.values() for each in service.get("volumes", [])]
    missing = [each for each in mounted if each.startswith(".") and not (FOLDER / each).exists()]
    assert missing == []


def test_gpu_worker_reserves_a_device_and_takes_the_rest_from_the_cpu_worker():
    service = read("compose.gpu.yaml")["services"]["worker-cuda"]
    assert service["extends"] == {"file": "compose.yaml", "service": "worker-cpu"}
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert service["build"]["target"] == "worker-cuda"


def test_spans_of_the_gateway_find_the_collector_and_jaeger(services):
    collector = yaml.safe_load((FOLDER / "otel-collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    endpoint = services["gateway"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == f"http://otel-collector:{port}"
    (exporter,) = collector["service"]["pipelines"]["traces"]["exporters"]
    assert collector["exporters"][exporter]["endpoint"].partition(":")[0] in services


def test_prometheus_scrapes_what_is_there(services):
    scrapes = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {
        target.partition(":")[0]
        for scrape in scrapes
        for group in scrape["static_configs"]
        for target in group["targets"]
    }
    assert "gateway" in targets
    assert targets <= {*services, "localhost"}
