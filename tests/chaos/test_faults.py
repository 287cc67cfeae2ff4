"""Workers and gateways that are killed, stopped and overloaded; requests that crash, hang, are given up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from background_load import BackgroundLoad
from grpc_health.v1 import health_pb2, health_pb2_grpc
from live_gateway import is_worker, wait_until

from crossgate import DeadlineExceeded, Exhausted, InferRequest, ModelFailed, Unavailable
from gateway.scheduling.suspects import QUARANTINE_CULPRITS
from protos import inference_pb2 as pb

pytestmark = pytest.mark.slow

ONE_SLOT = ("cpu,capacity=2",)
TWO_SLOTS = ("cpu,capacity=2", "cpu,capacity=3")
BOTH = [
    pytest.param(ONE_SLOT, id="one slot", marks=pytest.mark.long),
    pytest.param(TWO_SLOTS, id="two slots"),
]
ROW = {"INPUT0": np.zeros((1, 4), np.float32)}
POISON = 666.0


def rows_of(value):
    return {"INPUT0": np.full((1, 4), value, np.float32)}


def nothing_is_held(gateway):
    """Whether no batch, queue entry or request is left in the gateway."""
    return not (gateway.metric("crossgate_batches_in_flight") or gateway.metric("crossgate_queue_depth"))


async def gathered(*calls):
    return await asyncio.gather(*calls, return_exceptions=True)


# -- workers that die ---


@pytest.mark.parametrize("slots", [ONE_SLOT, TWO_SLOTS], ids=["one slot", "two slots"])
async def test_a_killed_worker_costs_no_request(models, start_gateway, eventually, slots):
    models.write_loopback("echo", options={"delay_us": 3000}, instance={"count": len(slots)})
    gateway = start_gateway(models, slots=slots)
    victim = gateway.worker(slots[-1])
    async with BackgroundLoad(gateway, "echo", callers=24) as load:
        await eventually(lambda: load.answered > 100)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: gateway.workers().get(slots[-1], victim) != victim)
        served = load.answered
        await eventually(lambda: load.answered > served + 200)
    assert load.failures == []
    assert gateway.metric("crossgate_worker_restarts_total") == 1
    assert gateway.metric("crossgate_requests_total", outcome="ok") == load.answered
    assert gateway.logged("killed by SIGKILL")
    await eventually(lambda: nothing_is_held(gateway))


async def test_a_stopped_worker_is_replaced_and_its_requests_run_elsewhere(models, start_gateway, eventually):
    models.write_loopback(
        "echo", options={"delay_us": 3000}, instance={"count": 2}, limits={"run_timeout_ms": 400}
    )
    gateway = start_gateway(models, slots=TWO_SLOTS)
    victim = gateway.worker(TWO_SLOTS[0])
    async with BackgroundLoad(gateway, "echo", callers=16) as load:
        await eventually(lambda: load.answered > 100)
        os.kill(victim, signal.SIGSTOP)
        await eventually(lambda: not is_worker(victim))
        served = load.answered
        await eventually(lambda: load.answered > served + 100)
    assert load.failures == []
    assert gateway.logged("did not end within 400 ms")
    await eventually(lambda: gateway.workers().get(TWO_SLOTS[0], victim) != victim)


async def test_a_run_that_hangs_fails_alone(models, start_gateway, eventually):
    models.write_loopback("echo", options={"hang_on": POISON}, limits={"run_timeout_ms": 300})
    gateway = start_gateway(models)
    async with BackgroundLoad(gateway, "echo", callers=4) as load:
        await eventually(lambda: load.answered > 20)
        async with gateway.async_client() as client:
            with pytest.raises(ModelFailed, match="did not end within 300 ms"):
                await client.infer("echo", rows_of(POISON))
        served = load.answered
        await eventually(lambda: load.answered > served + 20)
    assert load.failures == []
    assert gateway.state("echo", "1") == "READY"


# -- workers that die while loading ---


@pytest.mark.parametrize("slots", BOTH)
async def test_a_model_that_crashes_while_loading_does_not_fail_its_neighbours(
    models, start_gateway, eventually, slots
):
    neighbours = ("before", "zealous")  # loaded before and after the one that crashes
    for neighbour in neighbours:
        models.write_loopback(neighbour, instance={"count": len(slots)}, options={"load_delay_us": 100_000})
    models.write_loopback("crasher", options={"load": "crash"}, instance={"count": len(slots)})
    gateway = start_gateway(models, slots=slots)
    for neighbour in neighbours:
        assert gateway.state(neighbour, "1") == "READY"
    async with BackgroundLoad(gateway, "before") as before, BackgroundLoad(gateway, "zealous") as zealous:
        restarts = gateway.metric("crossgate_worker_restarts_total")
        await eventually(lambda: gateway.metric("crossgate_worker_restarts_total") > restarts)
        for load in (before, zealous):
            served = load.answered
            await eventually(lambda load=load, served=served: load.answered > served + 50)
    assert before.failures == zealous.failures == []
    state, reason = gateway.index("crasher")["1"]
    assert state in ("UNAVAILABLE", "LOADING")
    if state == "UNAVAILABLE":
        assert "lost while loading" in reason
    attempts = sum("crasher version 1 failed to load" in r["event"] for r in gateway.log())
    assert attempts <= 5 * len(slots)  # the waits between them double
    with gateway.client() as client, pytest.raises(Unavailable, match="crasher"):
        client.infer("crasher", ROW)


async def test_a_model_that_hangs_while_loading_does_not_stop_its_neighbours(
    models, start_gateway, eventually
):
    models.write_loopback("echo")
    gateway = start_gateway(models)
    worker = gateway.worker()
    models.write_loopback("hanging", options={"load": "hang"})
    await eventually(lambda: gateway.state("hanging", "1") == "LOADING")
    async with BackgroundLoad(gateway, "echo") as load:
        await eventually(lambda: load.answered > 100)
        with gateway.client() as client:
            with pytest.raises(Unavailable, match="loading"):
                client.infer("hanging", ROW)
            assert client.server_ready()  # it came after the start
    assert load.failures == []
    assert gateway.worker() == worker
    gateway.process.terminate()
    assert gateway.wait() == 0
    assert not is_worker(worker)


# -- requests that kill ---


@pytest.mark.parametrize("slots", BOTH)
async def test_a_poison_request_fails_alone_among_innocents(models, start_gateway, eventually, slots):
    models.write_loopback(
        "echo",
        options={"crash_on": POISON, "delay_us": 5000},
        instance={"count": len(slots)},
        batching={"max_batch_size": 32},
    )
    gateway = start_gateway(models, slots=slots)
    async with gateway.async_client() as client:
        answers = await gathered(
            *[client.infer("echo", rows_of(i if i != 60 else POISON), request_id=str(i)) for i in range(201)]
        )
    poison = answers.pop(60)
    assert isinstance(poison, ModelFailed), poison
    assert "running this request alone ended its worker" in poison.details
    assert [a for a in answers if isinstance(a, Exception)] == []
    assert gateway.state("echo", "1") == "READY"
    assert gateway.logged("request '60' is poison")
    assert not gateway.logged("quarantined")
    await eventually(lambda: gateway.workers().keys() == set(slots) and nothing_is_held(gateway))


async def test_a_model_whose_workers_die_without_a_culprit_is_quarantined_and_says_so(
    models, start_gateway, eventually
):
    models.write_loopback("fragile", options={"delay_us": 20_000})
    models.write_loopback("echo")
    gateway = start_gateway(models)
    async with BackgroundLoad(gateway, "fragile", callers=4) as load:
        for kills in (1, 2, 3):
            served = load.answered
            await eventually(lambda served=served: load.answered > served + 8)
            os.kill(gateway.worker(), signal.SIGKILL)
            await eventually(lambda kills=kills: gateway.metric("crossgate_worker_restarts_total") == kills)
            if kills < 3:
                assert load.failures == []
        await eventually(lambda: gateway.state("fragile", "1") == "UNAVAILABLE")
        await eventually(lambda: load.failures)
    assert "quarantined: its runs ended workers" in gateway.index("fragile")["1"][1]
    assert gateway.logged("model fragile version 1 is quarantined")
    assert "UNAVAILABLE" in load.failures[-1]
    assert "quarantined" in load.failures[-1]
    async with gateway.async_client() as client:
        await client.infer("echo", ROW)


async def test_a_model_that_crashes_on_every_request_is_quarantined(models, start_gateway, eventually):
    models.write_loopback("crasher", options={"crash_on": POISON})
    gateway = start_gateway(models)
    async with gateway.async_client() as client:
        for _ in range(QUARANTINE_CULPRITS):
            with pytest.raises(ModelFailed):
                await client.infer("crasher", rows_of(POISON))
        await eventually(lambda: gateway.state("crasher", "1") == "UNAVAILABLE")
        assert "quarantined" in gateway.index("crasher")["1"][1]
        with pytest.raises(Unavailable, match="quarantined"):
            await client.infer("crasher", ROW)


@pytest.mark.long
async def test_poison_that_keeps_coming_does_not_stop_innocents_for_long(models, start_gateway, eventually):
    models.write_loopback("echo", options={"crash_on": POISON, "delay_us": 2000})
    gateway = start_gateway(models)
    longest_s = 0.0
    async with gateway.async_client() as client, BackgroundLoad(gateway, "echo", callers=4) as load:
        for _ in range(4):
            served = load.answered
            began = time.monotonic()
            poison = asyncio.create_task(client.infer("echo", rows_of(POISON)))
            with pytest.raises(ModelFailed):
                await poison
            await eventually(lambda served=served: load.answered > served + 10)
            longest_s = max(longest_s, time.monotonic() - began)
    assert load.failures == []
    assert gateway.state("echo", "1") == "READY"
    assert longest_s < 4.0  # two workers to start, each within a second


async def test_a_model_that_is_not_retried_fails_with_its_worker_and_runs_once(
    models, start_gateway, eventually
):
    batching = {"batchable": True}  # declared, or the probe would take ten runs of each
    models.write_loopback("once", options={"delay_us": 700_000}, retry="never", batching=batching)
    models.write_loopback("again", options={"delay_us": 700_000}, batching=batching)
    gateway = start_gateway(models)
    async with gateway.async_client() as client:
        once = asyncio.create_task(client.infer("once", ROW))
        again = asyncio.create_task(client.infer("again", ROW))
        await eventually(lambda: gateway.metric("crossgate_batches_in_flight") == 2)
        os.kill(gateway.worker(), signal.SIGKILL)
        with pytest.raises(Unavailable, match="retry: never"):
            await once
        assert (await again).version == "1"
    assert gateway.metric("crossgate_reruns_total", model="once") == 0
    assert gateway.metric("crossgate_reruns_total", model="again") == 1
    assert gateway.metric("crossgate_batches_total", model="once") == 0


# -- callers that go away ---


async def test_ten_thousand_cancellations_leave_nothing_behind(models, start_gateway, eventually):
    models.write_loopback(
        "slow",
        options={"delay_us": 4000},
        batching={"max_batch_size": 4, "max_queue_size": 5000},
    )
    gateway = start_gateway(models)

    async def cancelled_round(client, calls):
        tasks = [
            asyncio.create_task(client.infer("slow", rows_of(i), timeout_s=0.005 if i % 3 == 0 else 30.0))
            for i in range(calls)
        ]
        answered = asyncio.create_task(client.infer("slow", ROW))
        await asyncio.wait(tasks, timeout=0.05)
        for task in tasks:
            task.cancel()
        await gathered(*tasks)
        await answered

    async with gateway.async_client() as client:
        for _ in range(4):
            await cancelled_round(client, 250)
        await eventually(lambda: nothing_is_held(gateway))
        resident, descriptors = gateway.resident_bytes(), gateway.descriptors()
        for _ in range(40):
            await cancelled_round(client, 250)
        await eventually(lambda: nothing_is_held(gateway))
        assert gateway.descriptors() <= descriptors + 2
        assert gateway.resident_bytes() < resident + (32 << 20)
        assert gateway.metric("crossgate_requests_total", outcome="cancelled") > 1000
        # every credit and every byte of the arena is there again
        answers = await gathered(*[client.infer("slow", rows_of(i)) for i in range(200)])
    assert [a for a in answers if isinstance(a, Exception)] == []
    assert gateway.metric("crossgate_worker_restarts_total") == 0
    await eventually(lambda: nothing_is_held(gateway))


async def test_cancelled_members_do_not_fail_their_batch_and_free_the_arena(
    models, start_gateway, eventually
):
    """Requests of 256 KiB through an arena of 1 MiB: what is not given back would soon be missed."""
    models.write_loopback("big", options={"delay_us": 20_000}, batching={"max_batch_size": 4})
    gateway = start_gateway(
        models, arguments=("--grpc-port=0", "--http-port=0", "--arena-mib=1", "--arena-budget-mib=1")
    )
    big = {"INPUT0": np.ones((1, 1 << 16), np.float32)}
    async with gateway.async_client() as client:
        for _ in range(8):
            tasks = [asyncio.create_task(client.infer("big", big)) for _ in range(12)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks[::2]:
                task.cancel()
            answers = await gathered(*tasks)
            assert [a for a in answers[1::2] if isinstance(a, Exception)] == []
    await eventually(lambda: nothing_is_held(gateway))
    assert gateway.metric("crossgate_requests_total", outcome="cancelled") > 8


# -- the gateway ends ---


async def test_sigterm_finishes_what_is_in_flight_and_ends_with_status_0(models, start_gateway, eventually):
    models.write_loopback(
        "slow", options={"delay_us": 700_000}, batching={"max_batch_size": 4, "batchable": True}
    )
    gateway = start_gateway(models)
    workers = gateway.workers().values()
    async with grpc.aio.insecure_channel(gateway.grpc) as channel, gateway.async_client() as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        calls = [asyncio.create_task(client.infer("slow", rows_of(i))) for i in range(8)]
        await eventually(lambda: gateway.metric("crossgate_batches_in_flight") >= 1)
        gateway.process.terminate()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(Unavailable):
            await client.infer("slow", ROW, timeout_s=5)
        answers = await gathered(*calls)
        assert [a for a in answers if isinstance(a, Exception)] == []
        watch.cancel()
    assert gateway.wait() == 0
    assert not any(is_worker(pid) for pid in workers)
    assert gateway.logged("draining: 8 requests in flight")


async def test_workers_of_a_killed_gateway_end_by_themselves(models, start_gateway, eventually):
    models.write_loopback("echo", instance={"count": 2}, options={"delay_us": 1000})
    gateway = start_gateway(models, slots=TWO_SLOTS)
    workers = list(gateway.workers().values())
    assert len(workers) == 2
    async with BackgroundLoad(gateway, "echo", callers=8) as load:
        await eventually(lambda: load.answered > 50)
        gateway.process.kill()
        load.stop()
    began = time.monotonic()
    await eventually(lambda: not any(is_worker(pid) for pid in workers), timeout_s=5.0)
    assert time.monotonic() - began < 5.0
    assert {failure.split(":")[0] for failure in load.failures} <= {"UNAVAILABLE"}


# -- overload ---


async def test_a_client_that_does_not_read_delays_nobody(models, start_gateway, eventually):
    models.write_loopback("large", options={"expand": 256})
    models.write_loopback("echo")
    gateway = start_gateway(models)
    request = InferRequest("large", {"INPUT0": np.zeros((1, 4096), np.float32)}).to_message()  # answer: 4 MiB
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(gateway.grpc, options) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
        )()
        for _ in range(40):
            await stream.write(request)
        await eventually(lambda: gateway.metric("crossgate_requests_total", model="large", outcome="ok") >= 8)
        async with gateway.async_client() as client:
            took_s = []
            for i in range(50):
                began = time.monotonic()
                await client.infer("echo", rows_of(i))
                took_s.append(time.monotonic() - began)
            large = await client.infer("large", {"INPUT0": np.zeros((1, 4096), np.float32)})
            assert large["OUTPUT0"].shape == (1, 4096 * 256)
        assert sorted(took_s)[25] < 0.25
        await eventually(lambda: nothing_is_held(gateway))
        stream.cancel()


async def test_overload_is_answered_by_deadlines_and_a_full_queue_with_pushback(
    models, start_gateway, eventually
):
    models.write_loopback(
        "slow",
        options={"delay_us": 50_000},
        batching={"max_batch_size": 1, "max_queue_size": 20},
    )
    gateway = start_gateway(models)
    began = time.monotonic()
    async with gateway.async_client() as client:
        answers = await gathered(*[client.infer("slow", ROW, timeout_s=0.5) for _ in range(100)])
        took_s = time.monotonic() - began
        refused = [a for a in answers if isinstance(a, Exhausted)]
        expired = [a for a in answers if isinstance(a, DeadlineExceeded)]
        served = [a for a in answers if not isinstance(a, Exception)]
        assert len(refused) + len(expired) + len(served) == 100, answers
        assert served
        assert expired
        assert refused
        for error in refused:
            assert "queue is full (20 requests)" in error.details
            assert int(dict(error.trailing_metadata)["grpc-retry-pushback-ms"]) > 0
        assert took_s < 3
        await eventually(lambda: nothing_is_held(gateway))
        assert (await client.infer("slow", ROW)).version == "1"
    assert gateway.metric("crossgate_rejected_total", model="slow") == len(refused)


def test_a_stopped_gateway_leaves_no_worker_and_no_socket(models, start_gateway, tmp_path):
    models.write_loopback("echo")
    gateway = start_gateway(models, environment={"TMPDIR": str(tmp_path)})
    worker = gateway.worker()
    assert list(Path(tmp_path).glob("crossgate-*/*.sock"))
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.wait() == 0
    wait_until(lambda: not is_worker(worker))
    assert not list(Path(tmp_path).glob("crossgate-*"))
