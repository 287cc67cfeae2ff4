"""Models that are loaded when somebody asks for them, through real processes and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
from onnx_models import Alone, affine
from store_gateway import Operator, StoreGateway, loopback

from crossgate import CrossgateError, DeadlineExceeded, Unavailable
from gateway.frontend.choice import find_native

pytestmark = pytest.mark.slow

ROW = {"INPUT0": np.ones((1, 4), np.float32)}
ON_DEMAND = {"load": {"mode": "on_demand"}}
UNPROBED = {"max_batch_size": 1, "batchable": False}  # one run of it is all that a load takes
MIB = 1 << 20
# What a front end has little part in, and takes seconds.
MOSTLY_NATIVE = pytest.mark.parametrize(
    "ports", ["native", pytest.param("grpcio", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(params=["native", "grpcio"])
def ports(request):
    """The arguments of each front end."""
    if request.param == "native" and (reason := find_native().reason):
        if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
            pytest.fail(f"needs the native front end: {reason}")
        pytest.skip(f"needs the native front end: {reason}")
    return ("--grpc-port=0", "--http-port=0", f"--frontend={request.param}")


@pytest.fixture
def start(tmp_path):
    """A gateway over a local store with these documents."""
    with contextlib.ExitStack() as stack:

        def start(models, **settings):
            url = str(tmp_path / "store.db")
            asyncio.run(Operator(url).put(**models))
            gateway = StoreGateway(url, tmp_path / "gateway.log", tmp_path / "state", **settings)
            start.gateways.append(gateway)
            return stack.enter_context(gateway)

        start.gateways = []
        yield start


def onnx(tmp_path, name, factor):
    file = tmp_path / f"{name}.onnx"
    file.write_bytes(affine(factor))
    instance = {"runtime": "onnxruntime", "device": "cpu", "threads": 1}
    return {"versions": {"1": {"source": file.as_uri()}}, "instances": [instance], **ON_DEMAND}


def test_a_client_asks_about_a_sleeping_model_and_is_answered(start, ports, tmp_path):
    gateway = start({"a": onnx(tmp_path, "a", 2.0), "b": onnx(tmp_path, "b", 2.0)}, arguments=ports)
    assert gateway.state("a", "1") == "DECLARED"
    assert not gateway.workers()
    with contextlib.closing(triton.InferenceServerClient(gateway.grpc)) as client:
        assert client.is_model_ready("a")
        metadata = client.get_model_metadata("a", client_timeout=30)
        assert [(each.name, each.datatype) for each in metadata.inputs] == [("x", "FP32")]
        assert list(metadata.versions) == ["1"]
        assert client.get_model_config("b", "1", client_timeout=30).config.max_batch_size == 64
        with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
            client.get_model_metadata("c", client_timeout=30)
        x = triton.InferInput("x", [2, 4], "FP32")
        x.set_data_from_numpy(np.full((2, 4), 3, np.float32))
        assert np.all(client.infer("a", [x]).as_numpy("y") == 7)
    assert gateway.log_text().count("is ready") == 2


def test_hundreds_of_first_requests_are_all_answered_right(start, ports, tmp_path):
    gateway = start({"a": onnx(tmp_path, "a", 2.0)}, arguments=ports)
    alone = Alone(affine(2.0))
    inputs = [np.random.default_rng(n).random((1 + n % 3, 4), np.float32) for n in range(200)]

    async def everybody():
        async with gateway.async_client() as client:
            return await asyncio.gather(*[client.infer("a", {"x": each}) for each in inputs])

    for given, result in zip(inputs, asyncio.run(everybody()), strict=True):
        np.testing.assert_array_equal(result["y"], alone.run({"x": given}, ["y"])["y"])
    assert gateway.log_text().count("is ready") == 1
    assert gateway.metric("crossgate_requests_total", outcome="ok") == 200


@MOSTLY_NATIVE
def test_a_first_request_waits_no_longer_than_its_deadline(start, ports, tmp_path):
    slow = {"options": {"delay_us": 1_000_000}, "warm_up": {"runs": 1}, "batching": UNPROBED, **ON_DEMAND}
    models = {"slow": loopback(tmp_path / "m", **slow)}
    models["own"] = loopback(tmp_path / "m", **slow, deadline={"default_ms": 500})
    gateway = start(models, arguments=ports)
    for name, timeout_s in (("slow", 0.5), ("own", None)):
        began_s = time.monotonic()
        with gateway.client(timeout_s=timeout_s) as client, pytest.raises(DeadlineExceeded):
            client.infer(name, ROW)
        assert 0.3 < time.monotonic() - began_s < 2.0
    with gateway.client() as client:
        client.infer("slow", ROW)


@MOSTLY_NATIVE
def test_a_worker_that_is_killed_while_requests_wait_fails_none_of_them(start, ports, tmp_path):
    slow = {"options": {"delay_us": 700_000}, "warm_up": {"runs": 1}, "batching": UNPROBED, **ON_DEMAND}
    quick = loopback(tmp_path / "m", **ON_DEMAND)
    gateway = start({"slow": loopback(tmp_path / "m", **slow), "quick": quick}, arguments=ports)
    gateway.client().infer("quick", ROW)
    worker = gateway.worker()

    async def everybody():
        async with gateway.async_client() as client:
            calls = [asyncio.ensure_future(client.infer("slow", ROW)) for _ in range(4)]
            calls.append(asyncio.ensure_future(client.model_metadata("slow")))
            await asyncio.sleep(0.7)
            assert not any(call.done() for call in calls)
            os.kill(worker, signal.SIGKILL)
            await asyncio.gather(*calls)
            await client.infer("quick", ROW)

    asyncio.run(everybody())
    assert gateway.worker() != worker


@MOSTLY_NATIVE
def test_a_gateway_that_drains_answers_who_waits(start, ports, tmp_path):
    slow = {"options": {"delay_us": 1_000_000}, "warm_up": {"runs": 1}, "batching": UNPROBED, **ON_DEMAND}
    gateway = start({"slow": loopback(tmp_path / "m", **slow)}, arguments=ports)

    async def everybody():
        async with gateway.async_client() as client:
            call = asyncio.ensure_future(client.infer("slow", ROW))
            await asyncio.sleep(0.3)
            gateway.process.terminate()
            return await call

    assert asyncio.run(everybody()).version == "1"
    assert gateway.wait() == 0


def sized(tmp_path, name, size_bytes, **more):
    """A model whose files take so much, on paper."""
    folder = tmp_path / name
    folder.mkdir()
    with (folder / "weights").open("wb") as file:
        file.truncate(size_bytes)
    return loopback(folder, **{**ON_DEMAND, **more})


class Watch:
    """Notes how many models are loaded at once, as the gateway says."""

    def __init__(self, gateway):
        self._gateway = gateway
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.most = self.looks = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _look(self):
        with self._gateway.client() as client:
            while not self._ended.wait(0.05):
                loaded = sum(each.state in ("READY", "UNLOADING") for each in client.models())
                self.most = max(self.most, loaded)
                self.looks += 1


def most_at_once(gateway):
    """Return how many models were loaded at once, by the order of what is logged."""
    now = most = 0
    for record in gateway.log():
        now += " is ready (" in record["event"]
        now -= " is unloaded" in record["event"]
        most = max(most, now)
    return most


def test_many_models_share_the_room_of_a_few_and_no_request_fails(start, tmp_path):
    names = [f"m{n}" for n in range(20)]
    models = {name: sized(tmp_path, name, 100 * MIB) for name in names}
    gateway = start(models, slots=("cpu,capacity=2,memory=550MiB",))
    failures, answered = [], dict.fromkeys(names, 0)

    async def caller(client, seed, until_s):
        chance = random.Random(seed)
        while time.monotonic() < until_s:
            name = chance.choice(names)
            value = np.full((1, 4), chance.randrange(1000), np.float32)
            try:
                result = await client.infer(name, {"INPUT0": value})
            except CrossgateError as error:
                failures.append(f"{name}: {error}")
                continue
            assert np.array_equal(result["OUTPUT0"], value)
            answered[name] += 1

    async def everybody():
        async with gateway.async_client(timeout_s=30) as client:
            until_s = time.monotonic() + 6
            await asyncio.gather(*[caller(client, seed, until_s) for seed in range(8)])

    with Watch(gateway) as watch:
        asyncio.run(everybody())
    assert not failures
    assert min(answered.values()) > 0
    assert watch.looks > 20
    assert watch.most <= 5
    assert most_at_once(gateway) <= 5
    assert gateway.log_text().count("makes room") > 10
    assert gateway.metric("crossgate_worker_restarts_total") == 0


def test_two_hot_models_in_the_room_of_one_are_both_served(start, tmp_path):
    paced = {"options": {"delay_us": 20_000}}
    models = {name: sized(tmp_path, name, 100 * MIB, **paced) for name in ("a", "b")}
    gateway = start(models, slots=("cpu,capacity=2,memory=150MiB",))
    failures, answered = [], {"a": 0, "b": 0}

    async def caller(client, name, until_s):
        while time.monotonic() < until_s:
            try:
                await client.infer(name, ROW)
            except CrossgateError as error:
                failures.append(f"{name}: {error}")
            else:
                answered[name] += 1

    async def everybody():
        async with gateway.async_client(timeout_s=20) as client:
            until_s = time.monotonic() + 8
            await asyncio.gather(*[caller(client, name, until_s) for name in "aabbaabb"])

    asyncio.run(everybody())
    assert not failures
    assert min(answered.values()) > 50
    assert most_at_once(gateway) == 1


def test_a_model_that_never_fits_says_why_to_callers_and_operators(start, tmp_path):
    models = {"large": sized(tmp_path, "large", 300 * MIB), "small": sized(tmp_path, "small", 100 * MIB)}
    gateway = start(models, slots=("cpu,capacity=2,memory=200MiB",))
    with gateway.client() as client:
        client.infer("small", ROW)
        with pytest.raises(Unavailable, match=r"it needs 300\.0 MiB; the slot's budget is 200\.0 MiB"):
            client.infer("large", ROW)
        assert "it needs 300.0 MiB" in gateway.index("large")["1"][1]
        client.infer("small", ROW)
    assert gateway.log_text().count("model small version 1 is ready") == 1


def test_what_nobody_asks_for_is_unloaded_and_comes_back(start, tmp_path, eventually):
    load = {"load": {"mode": "on_demand", "idle_unload_s": 1}}
    gateway = start({"a": loopback(tmp_path / "m", **load)})
    with gateway.client() as client:
        for _ in range(2):
            client.infer("a", ROW)
            assert gateway.state("a", "1") == "READY"
            while gateway.state("a", "1") != "DECLARED":
                time.sleep(0.05)
    assert gateway.log_text().count("is unloaded") == 2
