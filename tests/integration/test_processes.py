"""`serve --processes N` and restart in place: real processes behind one port, under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import urllib.request

import grpc
import numpy as np
import pytest
from background_load import BackgroundLoad
from live_gateway import is_worker, wait_until
from prometheus_client.parser import text_string_to_metric_families

from crossgate import AsyncClient, InferRequest, Unavailable
from gateway.frontend.choice import find_native
from protos import inference_pb2 as pb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_native().module is None, reason=f"needs the native front end: {find_native().reason}"
    ),
]

PORTS = ("--grpc-port=0", "--http-port=0")
ONE = (*PORTS, "--frontend=native")
TWO = (*PORTS, "--processes=2")
SLOT = "cpu,capacity=2"
ROW = {"INPUT0": np.zeros((1, 4), np.float32)}
REQUEST = InferRequest("echo", ROW).to_message()


@pytest.fixture
def start(models, start_gateway, tmp_path):
    """Start a gateway of one model whose runs take 2 ms; with the test none of its processes is left."""
    models.write_loopback("echo", options={"delay_us": 2000})
    (tmp_path / "tmp").mkdir()

    def start(arguments, **settings):
        environment = {"TMPDIR": str(tmp_path / "tmp")}
        return start_gateway(models, slots=(SLOT,), arguments=arguments, environment=environment, **settings)

    yield start
    for gateway in start_gateway.gateways:
        processes, workers = gateway.processes(), gateway.workers().values()
        if gateway.process.poll() is None:
            gateway.process.terminate()
        assert gateway.wait() == 0
        wait_until(lambda pids=(*processes, *workers): not any(map(runs, pids)))
    assert not list((tmp_path / "tmp").glob("crossgate-*"))


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.asynccontextmanager
async def connection(gateway):
    """A connection of its own: channels of one process share one otherwise. What gRPC sends again by default
    is what it has not sent yet, such as what it was about to send when it was asked to go.
    """
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(gateway.grpc, options) as channel:
        yield channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )


class Load:
    """Callers over some connections. A request that fails ends the test."""

    def __init__(self, gateway, connections=4, callers=6):
        self._gateway = gateway
        self._callers = callers
        self._running = True
        self._stack = contextlib.AsyncExitStack()
        self.answered = [0] * connections  # of each connection

    async def __aenter__(self):
        calls = [await self._stack.enter_async_context(connection(self._gateway)) for _ in self.answered]
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for number, call in enumerate(calls):
            for _ in range(self._callers):
                tasks.create_task(self._call(call, number))
        return self

    async def _call(self, call, number):
        while self._running:
            await call(REQUEST, timeout=20)
            self.answered[number] += 1

    async def __aexit__(self, *error):
        self._running = False
        await self._stack.__aexit__(*error)

    async def goes_on(self, eventually):
        """Wait until every connection has been served again."""
        before = list(self.answered)
        await eventually(
            lambda: all(now > then + 20 for now, then in zip(self.answered, before, strict=True))
        )


def total(address, name, **labels):
    """Return the sum of a metric of one process."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(k) == v for k, v in labels.items())
    )


def answered(gateway):
    return [total(each, "crossgate_requests_total", outcome="ok") for each in gateway.http.split(",")]


async def serves(gateway, connections=8):
    """Send a request over each of several new connections."""
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(connection(gateway)) for _ in range(connections)]
        await asyncio.gather(*[call(REQUEST, timeout=20) for call in calls])


# -- several processes ---


async def test_two_processes_share_the_port_and_the_workers(start):
    gateway = start(TWO)
    assert len(gateway.http.split(",")) == len(gateway.processes()) == 2
    for _ in range(20):
        await serves(gateway)
        if all(answered(gateway)):
            break
    assert sum(answered(gateway)) >= 8
    assert all(answered(gateway))
    up = [record["event"] for record in gateway.log() if "is up" in record["event"]]
    assert up == [f"worker {SLOT} is up, pid {gateway.worker()}"] * 2


async def test_a_process_that_is_killed_is_started_again_while_the_other_serves(start, eventually):
    gateway = start(TWO)
    worker, (first, second) = gateway.worker(), gateway.processes()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: not runs(first))
    await serves(gateway)
    await eventually(lambda: len(gateway.processes()) == 2)
    assert second in gateway.processes()
    await eventually(lambda: sum("version 1 is ready" in r["event"] for r in gateway.log()) == 3)
    await serves(gateway)
    assert gateway.logged(f"gateway process {first} was killed by SIGKILL")
    assert is_worker(worker)
    assert sum(total(each, "crossgate_worker_restarts_total") for each in gateway.http.split(",")) == 0


async def test_a_worker_that_dies_is_started_by_one_of_them_and_costs_no_request(start, eventually):
    gateway = start(TWO)
    async with Load(gateway) as load:
        await load.goes_on(eventually)
        os.kill(gateway.worker(), signal.SIGKILL)
        await load.goes_on(eventually)
    restarts = [total(each, "crossgate_worker_restarts_total") for each in gateway.http.split(",")]
    assert sorted(restarts) == [0, 1]


async def test_a_poison_request_in_one_process_fails_no_request_of_another(models, start, eventually):
    poison = InferRequest("fragile", {"INPUT0": np.full((1, 4), 666, np.float32)}).to_message()
    models.write_loopback("fragile", options={"crash_on": 666, "delay_us": 2000})
    gateway = start(TWO)
    async with Load(gateway, connections=6) as load, connection(gateway) as call:
        await load.goes_on(eventually)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(poison, timeout=20)
        assert failure.value.code() == grpc.StatusCode.INTERNAL
        assert "running this request alone ended its worker" in failure.value.details()
        await load.goes_on(eventually)
    assert sum("is poison" in record["event"] for record in gateway.log()) == 1


async def test_sigterm_drains_all_of_them(models, start, eventually):
    batching = {"max_batch_size": 1, "batchable": True}
    models.write_loopback("slow", options={"delay_us": 700_000}, batching=batching, instance={"count": 2})
    gateway = start(TWO)
    request = InferRequest("slow", ROW).to_message()
    async with connection(gateway) as one, connection(gateway) as other:
        calls = [asyncio.ensure_future(call(request, timeout=20)) for call in (one, other)]
        addresses = gateway.http.split(",")
        await eventually(lambda: sum(total(each, "crossgate_batches_in_flight") for each in addresses) == 2)
        gateway.process.terminate()
        for call in calls:
            assert (await call).model_name == "slow"
    assert gateway.wait() == 0
    assert sum("draining" in record["event"] for record in gateway.log()) == 2


async def test_a_second_signal_ends_them_at_once(models, start, eventually):
    models.write_loopback("slow", options={"hang_on": 666})
    gateway = start(TWO)
    async with gateway.async_client() as client:
        call = asyncio.ensure_future(client.infer("slow", {"INPUT0": np.full((1, 4), 666, np.float32)}))
        addresses = gateway.http.split(",")
        await eventually(lambda: sum(total(each, "crossgate_batches_in_flight") for each in addresses) == 1)
        gateway.process.terminate()
        await eventually(lambda: sum("draining" in record["event"] for record in gateway.log()) == 2)
        gateway.process.send_signal(signal.SIGINT)
        with pytest.raises(Unavailable):
            await call
    assert gateway.wait(10) == 0


def test_when_the_first_process_is_killed_all_others_end(models, start_gateway, tmp_path):
    models.write_loopback("echo")
    gateway = start_gateway(models, slots=(SLOT,), arguments=TWO, environment={"TMPDIR": str(tmp_path)})
    left = [*gateway.processes(), gateway.worker()]
    gateway.process.kill()
    wait_until(lambda: not any(map(runs, left)))


def test_what_keeps_them_from_starting_is_said_in_one_line(models, start_gateway, tmp_path):
    def refusal(*arguments):
        command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (result.returncode, result.stdout) == (1, ""), result
        return [line for line in result.stderr.splitlines() if line.startswith("error: ")]

    models.write_loopback("echo")
    there = f"--models={models.root}"
    assert refusal(there, *TWO, "--frontend=grpcio") == ["error: --processes 2 needs the native front end"]
    (missing,) = refusal(f"--models={tmp_path}/missing", *TWO)
    assert missing == f"error: {tmp_path}/missing is not a directory"
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for several in ("--processes=1", "--processes=2"):
        (unsafe,) = refusal(there, *PORTS, several, f"--pool-folder={tmp_path}/open")
        assert f"{tmp_path}/open is not this user's alone" in unsafe
    gateway = start_gateway(models, arguments=ONE)
    (taken,) = refusal(there, "--processes=2", f"--grpc-port={gateway.grpc.rpartition(':')[2]}")
    assert taken == f"error: cannot listen on {gateway.grpc}: Address already in use"


# -- restart in place ---


@pytest.mark.parametrize("arguments", [ONE, TWO], ids=["one process", "two processes"])
async def test_a_restart_under_load_costs_no_request_and_loads_no_model(start, eventually, arguments):
    gateway = start(arguments)
    worker = gateway.worker()
    async with Load(gateway) as load:
        for restart in (1, 2):
            await load.goes_on(eventually)
            before = gateway.processes()
            gateway.process.send_signal(signal.SIGUSR2)
            times = restart * max(len(before), 1)
            await eventually(lambda times=times: handed_over(gateway) == times, timeout_s=30)
            await eventually(lambda before=before: not set(before) & set(gateway.processes()))
        await load.goes_on(eventually)
    assert gateway.process.poll() is None
    assert gateway.worker() == worker
    starts = {record["event"] for record in gateway.log() if "is up" in record["event"]}
    assert starts == {f"worker {SLOT} is up, pid {worker}"}


async def test_a_client_of_ours_notices_nothing_of_a_restart(start, eventually):
    gateway = start(ONE)
    async with BackgroundLoad(gateway, "echo", callers=24, settings={"retries": 2}) as load:
        await eventually(lambda: load.answered > 50)
        gateway.process.send_signal(signal.SIGUSR2)
        await eventually(lambda: handed_over(gateway) == 1, timeout_s=30)
        await eventually(lambda: gateway.processes())
        served = load.answered
        await eventually(lambda: load.answered > served + 100)
    assert load.failures == []


def handed_over(gateway):
    return sum("follows" in record["event"] for record in gateway.log())


async def test_all_listeners_pass_to_the_successor(start, eventually, tmp_path):
    path = tmp_path / "grpc.sock"
    gateway = start((*ONE, f"--grpc-unix={path}"))
    for restart in (1, 2):
        gateway.process.send_signal(signal.SIGUSR2)
        await eventually(lambda restart=restart: handed_over(gateway) == restart, timeout_s=30)
        await eventually(lambda: len(gateway.processes()) == 1)
        assert gateway.get("/readyz")[0] == 200
        await serves(gateway, connections=1)
        async with AsyncClient(f"unix:{path}", retries=0, timeout_s=20) as client:
            assert (await client.infer("echo", ROW)).version == "1"
    gateway.process.terminate()
    assert gateway.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(ONE, id="one process", marks=pytest.mark.long), pytest.param(TWO, id="two processes")],
)
async def test_a_successor_that_cannot_serve_changes_nothing(models, start, eventually, arguments):
    gateway = start(arguments)
    before = gateway.processes()
    away = models.root.rename(models.root.with_name("away"))
    gateway.process.send_signal(signal.SIGUSR2)
    await eventually(lambda: gateway.logged(f"{models.root} is not a directory"))
    await serves(gateway)
    assert gateway.processes() == before
    away.rename(models.root)
    gateway.process.send_signal(signal.SIGUSR2)
    await eventually(lambda: handed_over(gateway) == max(len(before), 1), timeout_s=30)
    await serves(gateway)


async def test_a_request_of_before_a_restart_ends_even_after_sigterm(models, start, eventually):
    models.write_loopback("slow", options={"delay_us": 2_500_000}, batching={"batchable": True})
    gateway = start(ONE)
    async with connection(gateway) as call:
        slow = asyncio.ensure_future(call(InferRequest("slow", ROW).to_message(), timeout=20))
        await eventually(lambda: gateway.metric("crossgate_batches_in_flight") == 1)
        gateway.process.send_signal(signal.SIGUSR2)
        await eventually(lambda: gateway.logged("1 requests in flight"))
        gateway.process.terminate()
        assert (await slow).model_name == "slow"
    assert gateway.wait() == 0


def test_grpcio_cannot_hand_over_and_serves_on(models, start_gateway):
    models.write_loopback("echo")
    gateway = start_gateway(models, arguments=(*PORTS, "--frontend=grpcio"))
    gateway.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: gateway.logged("only the native front end can hand over"))
    with gateway.client() as client:
        assert client.infer("echo", ROW).version == "1"


# -- a gateway that comes again ---


def test_a_gateway_that_starts_again_at_once_finds_its_worker(models, start_gateway, tmp_path):
    models.write_loopback("echo")
    arguments = (*PORTS, f"--pool-folder={tmp_path / 'pool'}")
    killed = start_gateway(models, arguments=arguments)
    worker = killed.worker()
    killed.process.kill()
    again = start_gateway(models, arguments=arguments)
    assert again.logged(f"worker cpu,capacity=2 is up, pid {worker}")
    with again.client() as client:
        assert client.infer("echo", ROW).version == "1"
    again.process.terminate()
    assert again.wait() == 0
    wait_until(lambda: not is_worker(worker))
