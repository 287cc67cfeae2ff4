"""A directory of models that changes while it is served."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest
from background_load import BackgroundLoad
from onnx_models import affine, mlp, softmax_over_batch

from crossgate import InvalidRequest, NotFound, Unavailable

pytestmark = pytest.mark.slow

X = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
ROW = {"INPUT0": np.zeros((1, 4), np.float32)}


def scaled_by_its_version(result, value):
    """What `affine(version)` answers."""
    assert np.all(result["y"] == value * int(result.version) + 1)


async def metric_reaches(eventually, gateway, value, name, **labels):
    return await eventually(lambda: gateway.metric(name, **labels) == value)


class Loads:
    """Which servables have been loaded so far, by the log: a change of policy must not add any."""

    def __init__(self, gateway):
        self._gateway = gateway

    def of(self, model):
        start = f"model {model} version "
        return [
            r["event"]
            for r in self._gateway.log()
            if r["event"].startswith(start) and " is ready" in r["event"]
        ]


async def test_an_added_version_takes_over_without_a_failure_and_the_old_one_unloads(
    models, start_gateway, eventually
):
    models.write_version("scaled", "1", affine(1))
    gateway = start_gateway(models)
    async with BackgroundLoad(gateway, "scaled", name="x", check=scaled_by_its_version) as load:
        await eventually(lambda: load.versions["1"] > 20)
        models.write_version("scaled", "2", affine(2))
        await eventually(lambda: gateway.index("scaled") == {"2": ("READY", "")})
        at_switch = load.versions["1"]
        served = load.versions["2"]
        await eventually(lambda: load.versions["2"] > served + 20)
        assert load.versions["1"] <= at_switch + 8  # at most what was in flight then
        await eventually(lambda: gateway.logged("model scaled version 1 is unloaded"))
        models.remove_version("scaled", "2")
        models.write_version("scaled", "3", affine(3))
        await eventually(lambda: gateway.index("scaled") == {"3": ("READY", "")})
    assert load.failures == []
    with gateway.client() as client, pytest.raises(NotFound, match="no version or label '2'"):
        client.infer("scaled", {"x": X}, version="2")


async def test_removed_models_and_versions_are_not_found_and_others_go_on(models, start_gateway, eventually):
    for model in ("leaving", "staying"):
        models.write_loopback(model, versions=("1", "2"), version_policy={"all": True})
    gateway = start_gateway(models)
    with gateway.client() as client:
        assert client.infer("leaving", ROW).version == "2"
        models.remove_version("leaving", "2")
        await eventually(lambda: list(gateway.index("leaving")) == ["1"])
        assert client.infer("leaving", ROW).version == "1"
        with pytest.raises(NotFound, match="there are 1"):
            client.infer("leaving", ROW, version="2")
        models.remove_model("leaving")
        await eventually(lambda: gateway.index("leaving") == {})
        with pytest.raises(NotFound, match="unknown model 'leaving'; this gateway serves staying"):
            client.infer("leaving", ROW)
        assert client.infer("staying", ROW).version == "2"
        assert client.server_ready()


async def test_a_corrupt_version_leaves_the_old_one_serving_until_a_good_one_comes(
    models, start_gateway, eventually
):
    models.write_version("scaled", "1", affine(1))
    gateway = start_gateway(models)
    async with BackgroundLoad(gateway, "scaled", name="x", check=scaled_by_its_version, callers=2) as load:
        models.write_version("scaled", "2", affine(2)[:-40])
        await eventually(lambda: gateway.state("scaled", "2") == "UNAVAILABLE")
        reason = gateway.index("scaled")["2"][1]
        assert "cpu" in reason
        assert "protobuf" in reason.lower() or "model" in reason.lower(), reason
        assert gateway.state("scaled", "1") == "READY"
        with gateway.client() as client, pytest.raises(Unavailable, match="version 2 is not ready"):
            client.infer("scaled", {"x": X}, version="2")
        served = load.versions["1"]
        await eventually(lambda: load.versions["1"] > served + 5)
        models.write_version("scaled", "3", affine(3))
        await eventually(lambda: gateway.index("scaled") == {"3": ("READY", "")})
        await eventually(lambda: load.versions["3"])
    assert load.failures == []
    assert set(load.versions) == {"1", "3"}


async def test_a_broken_document_is_reported_in_full_and_the_last_good_one_serves(
    models, start_gateway, eventually
):
    models.write_loopback("echo", batching={"max_batch_size": 8})
    models.write_loopback("other")
    models.write_document("never", "instances: [{runtime: loopbck, device: cpu}]\nlables: {a: '1'}\n")
    models.write_version("never", "1")
    gateway = start_gateway(models)
    problems = ("max_batch_size", "max_queue_delay", "loopback", "retry")
    with gateway.client() as client:
        models.write_document(
            "echo",
            "instances: [{runtime: loopbck, device: cpu}]\n"
            "batching: {max_batch_size: 0, max_queue_delay_ms: 3}\n"
            "retry: sometimes\n",
        )
        await eventually(lambda: "" in gateway.index("echo"))
        reason = gateway.index("echo")[""][1]
        logged = next(r["event"] for r in gateway.log() if "echo: its document is not valid" in r["event"])
        for problem in problems:
            assert problem in reason
            assert problem in logged
        assert gateway.state("echo", "1") == "READY"
        assert client.infer("echo", {"INPUT0": np.zeros((8, 1), np.float32)}).version == "1"
        with pytest.raises(InvalidRequest, match="max_batch_size 8"):
            client.infer("echo", {"INPUT0": np.zeros((9, 1), np.float32)})
        # what was never good has nothing to serve, says why, and stops nobody
        with pytest.raises(Unavailable, match="labels"):
            client.infer("never", ROW)
        assert client.infer("other", ROW).version == "1"
        assert client.server_ready()
        models.write_loopback("echo", batching={"max_batch_size": 9})
        await eventually(lambda: gateway.index("echo") == {"1": ("READY", "")})
        assert client.infer("echo", {"INPUT0": np.zeros((9, 1), np.float32)}).version == "1"


async def test_policy_and_traffic_change_without_a_load(models, start_gateway, eventually):
    def document(**changes):
        models.write_loopback("live", versions=("1", "2"), version_policy={"all": True}, **changes)

    document(batching={"max_batch_size": 4}, traffic={"split": {"1": 1}})
    gateway = start_gateway(models)
    worker, loads = gateway.worker(), Loads(gateway).of("live")
    assert len(loads) == 2
    with gateway.client() as client:
        first = client.infer("live", ROW)
        assert first.version == "1"
        document(
            batching={"max_batch_size": 2}, traffic={"split": {"2": 1}}, limits={"max_request_bytes": 1000}
        )
        await eventually(lambda: client.infer("live", ROW).version == "2")
        second = client.infer("live", ROW)
        assert second.revision > first.revision
        with pytest.raises(InvalidRequest, match="max_batch_size 2"):
            client.infer("live", {"INPUT0": np.zeros((3, 4), np.float32)})
        with pytest.raises(Exception, match="limit of 1000 bytes") as refused:
            client.infer("live", {"INPUT0": np.zeros((2, 200), np.float32)})
        assert refused.value.code.name == "RESOURCE_EXHAUSTED"
        document(batching={"max_batch_size": 4}, deadline={"default_ms": 60_000})
        await eventually(lambda: client.infer("live", ROW).revision > second.revision)
        client.infer("live", {"INPUT0": np.zeros((4, 4), np.float32)})
    assert gateway.worker() == worker
    assert Loads(gateway).of("live") == loads
    assert not gateway.logged("is unloaded")


async def test_a_limit_of_one_row_can_be_lifted(models, start_gateway, eventually):
    """Whether a model may be batched is found out at load, where one row leaves nothing to find out."""
    models.write_loopback("single", batching={"max_batch_size": 1})
    gateway = start_gateway(models)
    assert gateway.logged("not batchable: max_batch_size is 1")
    models.write_loopback("single", batching={"max_batch_size": 16, "max_queue_delay_us": 300_000})
    await eventually(lambda: Loads(gateway).of("single")[-1].endswith("(batchable)"))
    await eventually(lambda: gateway.index("single") == {"1": ("READY", "")})
    async with gateway.async_client() as client:
        await asyncio.gather(*[client.infer("single", ROW) for _ in range(8)])
    assert gateway.metric("crossgate_batches_total", model="single") == 1


async def test_labels_split_stickiness_and_rules_route_a_client(models, start_gateway, eventually):
    def document(**traffic):
        models.write_loopback(
            "routed",
            versions=("1", "2", "3"),
            version_policy={"all": True},
            labels={"stable": "1", "canary": "2"},
            traffic={"split": {"stable": 3, "canary": 1}, **traffic},
        )

    rules = [{"when": {"metadata": {"x-cohort": "beta", "x-region": "eu"}}, "to": "3"}]
    document(sticky={"metadata": "x-user"}, rules=rules)
    gateway = start_gateway(models)
    with gateway.client() as client:

        def served(metadata=None, version=""):
            return client.infer("routed", ROW, metadata=metadata, version=version).version

        assert served(version="canary") == "2"
        assert served(version="stable") == "1"
        assert served(version="3") == "3"
        assert client.model_ready("routed", "canary")
        assert client.model_metadata("routed", "stable").name == "routed"
        with pytest.raises(NotFound, match="canary"):
            served(version="canray")
        assert served({"x-cohort": "beta", "x-region": "eu", "x-user": "u1"}) == "3"
        assert served({"x-cohort": "beta"}) in ("1", "2")  # a rule wants all of its conditions
        by_user = {f"u{i}": served({"x-user": f"u{i}"}) for i in range(60)}
        assert {served({"x-user": "u5"}) for _ in range(5)} == {by_user["u5"]}
        assert 5 <= list(by_user.values()).count("2") <= 30  # a quarter of 60, by the hash: always the same
        at_random = [served() for _ in range(200)]
        assert 20 <= at_random.count("2") <= 90  # a quarter of 200: eight deviations to each side
        assert "3" not in at_random
        # a label that names a version which is not there yet keeps the routing of before
        models.write_loopback(
            "routed",
            versions=("1", "2", "3"),
            version_policy={"all": True},
            labels={"stable": "1", "canary": "4"},
            traffic={"split": {"canary": 1}},
        )
        # a label of a version that is not there is refused: what was in force stays
        await eventually(lambda: "labels.canary" in gateway.index("routed").get("", ("", ""))[1])
        assert served(version="canary") == "2"
        models.write_version("routed", "4")
        await eventually(lambda: served(version="canary") == "4")
        assert {served() for _ in range(10)} == {"4"}


async def test_a_config_pbtxt_is_served_with_its_batching_and_names_what_it_cannot_honour(
    models, start_gateway, eventually
):
    (models.root / "triton").mkdir()
    (models.root / "triton" / "config.pbtxt").write_text(
        'name: "triton"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 3\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }\n'
        "dynamic_batching { max_queue_delay_microseconds: 1000 }\n"
        "instance_group { count: 1 kind: KIND_CPU }\n"
        'response_cache { enable: true }\ndefault_model_filename: "net.onnx"\n'
    )
    models.write_files("triton", "1", {"net.onnx": affine(5)})
    gateway = start_gateway(models)
    with gateway.client() as client:
        assert client.infer("triton", {"x": X})["y"].tolist() == (5 * X + 1).tolist()
        with pytest.raises(InvalidRequest, match="max_batch_size 3"):
            client.infer("triton", {"x": np.repeat(X, 4, axis=0)})
        config = client.model_config("triton")
    assert config.max_batch_size == 3
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert gateway.logged("config.pbtxt: not honoured")


async def test_a_required_model_that_fails_keeps_the_server_unready(models, start_gateway, eventually):
    models.write_loopback("needed", options={"load": "fail"}, required=True)
    models.write_loopback("other")
    ports = [free_port(), free_port()]
    gateway = start_gateway(
        models, arguments=(f"--grpc-port={ports[0]}", f"--http-port={ports[1]}"), ready=False
    )
    gateway.grpc, gateway.http = (f"127.0.0.1:{port}" for port in ports)
    await eventually(lambda: gateway.logged("model needed version 1 failed to load"))
    await eventually(lambda: gateway.logged("model other version 1 is ready"))
    with gateway.client() as client:
        assert client.server_live()
        assert not client.server_ready()
        assert client.infer("other", ROW).version == "1"
        status, body = gateway.get("/readyz")
        assert status == 503
        assert "needed is required" in body
        assert "declared to fail at load" in body
        models.write_loopback("needed", required=True)
        await eventually(client.server_ready)
        assert gateway.get("/readyz")[0] == 200
        assert client.infer("needed", ROW).version == "1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_broken_models_say_why_and_stop_no_others(models, start_gateway, eventually):
    """One directory with a model of each kind of trouble: all of them are told apart in the index."""
    models.write_version("good", "1", affine(2))
    models.write_version("corrupt", "1", b"no protobuf at all")
    models.write_version("empty", "1", b"")
    models.write_files("nothing", "1", {"readme.txt": b"the model comes later"})
    models.write_document("versionless", {"batching": {"max_batch_size": 4}})
    models.write_loopback("refusing", options={"load": "fail"})
    models.write_loopback("misspelt", options={"delay": 3})
    models.write_loopback("elsewhere", instance={"device": "cuda:0"})
    models.write_version("mixing", "1", softmax_over_batch())
    models.write_version("declared", "1", affine(2))
    models.write_document(
        "declared",
        {
            "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 4]}],
            "outputs": [{"name": "z", "datatype": "FP32", "shape": [-1, 4]}],
        },
    )
    models.write_version("narrow", "1", mlp(1))
    models.write_document(
        "narrow",
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 5]}],
        },
    )
    gateway = start_gateway(models)
    reasons = {
        "corrupt": "protobuf",
        "empty": "",
        "nothing": "no model.onnx",
        "versionless": "no version that can be served",
        "refusing": "declared to fail at load",
        "misspelt": "unknown loopback options delay",
        "elsewhere": "no slot here is cuda:0",
        "declared": "input x is FP32, not INT64",
        "narrow": "[-1, 12], not [-1, 3]",
    }
    with gateway.client() as client:
        assert client.server_ready()
        for model, reason in reasons.items():
            (found,) = gateway.index(model).values()
            assert found[0] == "UNAVAILABLE", (model, found)
            assert reason.lower() in found[1].lower(), (model, found)
            with pytest.raises(Unavailable):
                client.infer(model, {"x": X})
        assert "output z does not exist" in gateway.index("declared")["1"][1]
        assert client.infer("good", {"x": X})["y"].tolist() == (2 * X + 1).tolist()
        # it is served alone, because its answers depend on batch mates, and says so
        assert gateway.state("mixing", "1") == "READY"
        assert gateway.logged("mixing version 1 is ready (not batchable: answers depend on batch mates: y")
        assert client.model_config("mixing").max_batch_size == 0
    async with gateway.async_client() as client:
        answers = await asyncio.gather(*[client.infer("mixing", {"x": X * i}) for i in range(6)])
    assert all(np.all(answer["y"] == 1) for answer in answers)
    assert gateway.metric("crossgate_batches_total", model="mixing") == 6


async def test_a_gateway_that_starts_beside_a_broken_highest_version_serves_the_one_before(
    models, start_gateway, eventually
):
    models.write_version("scaled", "1", affine(1))
    models.write_version("scaled", "2", b"this is no model")
    gateway = start_gateway(models)
    await eventually(lambda: gateway.index("scaled").get("1") == ("READY", ""))
    with gateway.client() as client:
        assert client.infer("scaled", {"x": X}).version == "1"
    state, reason = gateway.index("scaled")["2"]
    assert state == "UNAVAILABLE"
    assert reason
