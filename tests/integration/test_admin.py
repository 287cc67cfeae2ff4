"""The admin service of real gateways, through the commands that ask it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time

import numpy as np
import pytest
from typed_commands import COMMAND, process, typed

from crossgate.admin import AdminClient
from crossgate.errors import CrossgateError, NotFound, Unavailable
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS

pytestmark = pytest.mark.slow

LIMIT_S = 30
ROW = {"INPUT0": np.ones((1, 4), np.float32)}
DELAY_S = 0.02
UNPROBED = {"max_batch_size": 1, "batchable": False}  # else slow models are slow to load


class Folder:
    """Where admin sockets are: one of this test's own, with a short path."""

    def __init__(self, path):
        self.path = path
        self.environment = {"XDG_RUNTIME_DIR": path}

    def crossgate(self, *arguments, run=typed):
        """Run a command to its end."""
        return run(*arguments, environment={**self.environment, "CROSSGATE_ADMIN": None, "COLUMNS": None})

    def sockets(self):
        folder = os.path.join(self.path, "crossgate")
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]

    def client(self):
        (path,) = self.sockets()
        return AdminClient(f"unix:{path}")


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="cg-") as path:
        yield Folder(path)


@pytest.fixture
def start(folder, start_gateway):
    """Start gateways whose admin sockets are in `folder`."""
    return lambda models, **settings: start_gateway(models, **{"environment": folder.environment, **settings})


def as_json(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def error_of(result):
    assert result.returncode == 1, result
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


async def test_figures_are_right_under_load(models, start, folder):
    """A known number of requests, one after the other, and what the gateway says of them."""
    models.write_loopback("paced", options={"delay_us": int(DELAY_S * 1e6)})
    gateway = start(models)
    requests = 60
    async with gateway.async_client() as client:
        took_s = []
        for _ in range(requests):
            began = time.perf_counter()
            await client.infer("paced", ROW)
            took_s.append(time.perf_counter() - began)
        with pytest.raises(NotFound):
            await client.infer("paced", ROW, version="9")
    status = as_json(await asyncio.to_thread(folder.crossgate, "status", "paced", "--json"))
    (model,) = status["models"]
    (version,) = model["versions"]
    figures = version["figures"]
    assert figures["outcomes_total"] == {"ok": requests}
    assert model["refused"]["outcomes_total"] == {"not_found": 1}
    window_s = figures["window_seconds"]
    assert 1 < window_s < 16
    assert figures["requests_per_second"] * window_s == pytest.approx(requests)
    assert figures["errors_per_second"] == 0
    assert model["refused"]["errors_per_second"] * window_s == pytest.approx(1, rel=0.1)
    assert figures["mean_batch_size"] == 1
    low_s, high_s = bucket_of(float(np.median(took_s)))
    assert low_s / 2 <= figures["p50_seconds"] <= high_s  # a client's time has the way in it
    assert DELAY_S / 2 < figures["p50_seconds"] <= figures["p99_seconds"]
    (slot,) = status["slots"]
    assert (slot["state"], slot["capacity"], slot["pid"]) == ("up", 2, gateway.worker())
    assert status["gateway"]["pid"] == gateway.pid
    assert status["gateway"]["addresses"]["grpc"] == gateway.grpc
    assert status["gateway"]["models_by_state"] == {"READY": 1}


def bucket_of(seconds):
    bounds_s = [0.0, *(bound / 1e9 for bound in LATENCY_BOUNDS_NS)]
    high = next(i for i, bound in enumerate(bounds_s) if bound >= seconds)
    return bounds_s[high - 1], bounds_s[high]


async def test_what_waits_and_what_runs_is_shown(models, start, folder, eventually):
    models.write_loopback("slow", options={"delay_us": 600_000}, batching=UNPROBED)
    gateway = start(models, slots=("cpu,capacity=1",))
    async with gateway.async_client() as client:
        calls = [asyncio.ensure_future(client.infer("slow", ROW)) for _ in range(4)]
        with folder.client() as admin:

            def load():
                (page,) = admin.pages()
                version = page.models[0].versions[0]
                # a page is made in steps, between which requests arrive
                seen = (version.in_flight + version.queue_depth, page.gateway.in_flight)
                all_there = seen == (4, 4) and page.slots[0].batches_in_flight == version.in_flight
                return version if all_there else None

            version = await eventually(load)
        assert 1 <= version.in_flight <= 2  # one runs, one is staged
        await asyncio.gather(*calls)


def test_status_is_shown_in_columns_with_what_is_wrong(models, start, folder):
    models.write_loopback("good", labels={"stable": "1"})
    models.write_loopback("bad", options={"load": "fail"})
    start(models)
    shown = folder.crossgate("status", run=process).stdout
    rows = [line.split() for line in shown.splitlines()]
    assert ["good", "1", "READY", "100%"] in [row[:4] for row in rows]
    assert ["bad", "1", "UNAVAILABLE"] in [row[:3] for row in rows]
    assert "declared to fail at load" in shown
    assert ": serving, up " in shown
    one = folder.crossgate("status", "good").stdout
    assert "label stable is 1" in one
    assert "loopback on cpu,capacity=2 ready, one at a time" in one
    assert "bad" not in one.partition("model ")[2]
    assert 'no model "goood"; did you mean "good"?' in error_of(folder.crossgate("status", "goood"))
    assert 'no model matches "x*"' in error_of(folder.crossgate("status", "x*"))
    assert folder.crossgate("status", "g*").returncode == 0


async def test_explain_says_what_the_data_plane_does(models, start, folder):
    traffic = {
        "rules": [{"when": {"metadata": {"x-cohort": "beta"}}, "to": "canary"}],
        "sticky": {"metadata": "x-user"},
        "split": {"stable": 3, "canary": 1},
    }
    labels = {"stable": "1", "canary": "2"}
    models.write_loopback(
        "m", versions=("1", "2"), version_policy={"all": True}, labels=labels, traffic=traffic
    )
    gateway = start(models)
    by_rule = as_json(folder.crossgate("explain", "m", "-m", "x-cohort=beta", "--json", run=process))
    assert (by_rule["by"], by_rule["rule"], by_rule["ways"][0]["version"]) == ("rule", 1, "2")
    chance = as_json(folder.crossgate("explain", "m", "--json"))
    assert {way["version"]: way["share"] for way in chance["ways"]} == {"1": 0.75, "2": 0.25}
    async with gateway.async_client() as client:
        for user in ("anna", "ben", "cleo"):
            found = as_json(folder.crossgate("explain", "m", "-m", f"x-user={user}", "--json"))
            answer = await client.infer("m", ROW, metadata={"x-user": user})
            assert (found["by"], found["ways"][0]["version"]) == ("sticky", answer.version)
        missing = folder.crossgate("explain", "m/9")
        assert missing.returncode == 1
        with pytest.raises(CrossgateError) as caught:
            await client.infer("m", ROW, version="9")
        assert caught.value.details in missing.stdout


async def test_explain_says_why_a_request_was_slow_or_failed(models, start, folder):
    options = {"delay_us": 80_000, "fail_on": 13}
    models.write_loopback("m", options=options, batching=UNPROBED, trace={"slow_ms": 50})
    gateway = start(models)
    async with gateway.async_client() as client:
        await client.infer("m", ROW, request_id="late-1")
        with pytest.raises(CrossgateError):
            await client.infer("m", {"INPUT0": np.full((1, 4), 13, np.float32)}, request_id="wrong-1")
    (slow,) = as_json(folder.crossgate("explain", "late-1", "--json"))
    phases = {phase["name"]: phase["seconds"] for phase in slow["phases"]}
    assert (slow["why"], slow["model"], slow["version"], slow["outcome"]) == ("slow", "m", "1", "ok")
    assert max(phases, key=phases.get) == "run"
    assert 0.08 <= phases["run"] <= sum(phases.values()) <= slow["total_seconds"] * 1.01
    shown = folder.crossgate("explain", "wrong-1", run=process).stdout
    assert shown.startswith("request wrong-1: failed after ")
    assert "model m" in shown
    assert "<- longest" in shown
    recent = folder.crossgate("explain", "--recent").stdout.splitlines()
    assert [line.partition(":")[0] for line in recent] == ["wrong-1", "late-1"]
    unknown = folder.crossgate("explain", "never-1")
    assert unknown.returncode == 1
    assert "no slow or failed request of this id is kept" in unknown.stderr


async def test_a_drain_refuses_requests_until_it_ends(models, start, folder):
    models.write_loopback("m")
    gateway = start(models)
    async with gateway.async_client() as client:
        assert "draining, 0 requests in flight" in folder.crossgate("drain", run=process).stdout
        assert not await client.server_ready()
        with pytest.raises(Unavailable, match="draining"):
            await client.infer("m", ROW)
        assert gateway.get("/readyz")[0] == 503
        assert "draining" in folder.crossgate("status").stdout.splitlines()[0]
        assert "answer: UNAVAILABLE: this gateway is draining" in folder.crossgate("explain", "m").stdout
        assert folder.crossgate("drain").returncode == 0
        assert "serving again" in folder.crossgate("drain", "--end").stdout
        assert await client.server_ready()
        assert (await client.infer("m", ROW)).version == "1"
    assert gateway.process.poll() is None


@pytest.mark.parametrize(("deadline_s", "answered"), [(20, True), (0.1, False)])
async def test_a_drain_with_exit_ends_the_process(models, start, folder, deadline_s, answered, eventually):
    models.write_loopback("slow", options={"delay_us": 1_500_000}, batching=UNPROBED)
    gateway = start(models)
    async with gateway.async_client() as client:
        call = asyncio.ensure_future(client.infer("slow", ROW))
        with folder.client() as admin:
            await eventually(lambda: next(iter(admin.pages())).gateway.in_flight == 1)
            assert admin.drain(leave=True, deadline_s=deadline_s).exiting
        if answered:
            assert (await call).version == "1"
        else:
            with pytest.raises(Unavailable):
                await call
    assert await asyncio.to_thread(gateway.wait) == 0
    assert folder.sockets() == []


async def test_a_drain_that_waits_says_what_is_left(models, start, folder, eventually):
    models.write_loopback("slow", options={"delay_us": 1_500_000}, batching=UNPROBED)
    gateway = start(models)
    async with gateway.async_client() as client:
        call = asyncio.ensure_future(client.infer("slow", ROW))
        with folder.client() as admin:
            await eventually(lambda: next(iter(admin.pages())).gateway.in_flight == 1)
        short = await asyncio.to_thread(folder.crossgate, "drain", "--deadline-s", "0.1")
        assert "1 requests were not answered within 0.1 s" in error_of(short)
        long = await asyncio.to_thread(folder.crossgate, "drain", "--deadline-s", "20")
        assert "draining, 0 requests in flight" in long.stdout
        assert (await call).version == "1"


async def test_a_log_level_set_for_a_while_goes_back(models, start, folder, eventually):
    models.write_loopback("m")
    gateway = start(models)
    done = folder.crossgate("log-level", "debug", "--for", "500ms", "--logger", "gateway.admin", run=process)
    assert done.stdout.strip() == "log level of gateway.admin: debug for 500 ms; it was inherit"
    await eventually(lambda: gateway.logged("log level of gateway.admin is inherit again"))
    assert "did you mean" in error_of(folder.crossgate("log-level", "info", "--logger", "gateway.admim"))
    assert "known are debug, info" in error_of(folder.crossgate("log-level", "loud"))
    assert "is no duration such as 90s" in error_of(folder.crossgate("log-level", "info", "--for", "soon"))


async def test_a_watch_shows_a_new_version_and_a_lost_worker(models, start, folder, eventually):
    models.write_loopback("m", version_policy={"all": True})
    gateway = start(models)
    with subprocess.Popen(
        [*COMMAND, "status", "m", "--watch", "--json", "--interval", "1h"],
        stdout=subprocess.PIPE,
        env={**os.environ, **folder.environment},
        text=True,
    ) as watching:
        try:
            seen = []

            async def until(condition):
                async with asyncio.timeout(LIMIT_S):
                    while not seen or not condition(seen[-1]):
                        seen.append(json.loads(await asyncio.to_thread(watching.stdout.readline)))

            await until(lambda page: len(page["models"][0]["versions"]) == 1)
            models.write_version("m", "2")
            await until(lambda page: [v["state"] for v in page["models"][0]["versions"]] == ["READY"] * 2)
            os.kill(gateway.worker(), signal.SIGKILL)
            await until(lambda page: page["slots"][0]["restarts"] == 1 and page["slots"][0]["state"] == "up")
            watching.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(watching.wait, LIMIT_S) == 0
        finally:
            watching.kill()


def test_of_several_gateways_one_must_be_named(models, start, folder):
    assert "no gateway of yours runs here; start one" in error_of(folder.crossgate("status"))
    models.write_loopback("m")
    first, second = start(models), start(models)
    message = error_of(folder.crossgate("status"))
    assert "several gateways run here" in message
    names = [os.path.basename(path).removesuffix(".admin.sock") for path in folder.sockets()]
    assert all(name in message for name in names)
    pids = {as_json(folder.crossgate("status", "--json", "-g", n))["gateway"]["pid"] for n in names}
    assert pids == {first.pid, second.pid}
    assert "no gateway of yours called" in error_of(folder.crossgate("status", "-g", "nobody"))


def test_the_socket_of_a_gateway_that_was_killed_is_replaced(models, start, folder):
    models.write_loopback("m")
    first = start(models)
    port = first.http.rpartition(":")[2]
    first.process.kill()
    first.wait()
    assert len(folder.sockets()) == 1
    second = start(models, arguments=("--grpc-port=0", f"--http-port={port}"))
    assert as_json(folder.crossgate("status", "--json"))["gateway"]["pid"] == second.pid
    assert len(folder.sockets()) == 1


async def test_a_successor_is_asked_under_the_same_name(models, start, folder, eventually):
    models.write_loopback("m")
    gateway = start(models)
    (socket,) = folder.sockets()
    with folder.client() as admin:
        first = next(iter(admin.pages())).gateway
    assert first.frontend == "native"
    gateway.process.send_signal(signal.SIGUSR2)

    def successor():
        try:
            with AdminClient(f"unix:{socket}") as admin:
                found = next(iter(admin.pages())).gateway
        except Unavailable:
            return None
        return found if found.pid != first.pid else None

    second = await eventually(successor)
    assert second.name == first.name
    assert second.addresses["grpc"] == gateway.grpc
    await eventually(lambda: gateway.logged("draining"))
    assert folder.sockets() == [socket]
    assert as_json(folder.crossgate("status", "--json"))["gateway"]["pid"] == second.pid
