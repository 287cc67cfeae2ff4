"""Pools in processes of their own, over gRPC and over a Unix socket, and gateways that discover them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import live_pool
import pytest
import trustme
from live_pool import NODE, SLOT, GatewaySide, LivePool
from worker_connection import LIMIT_S, MIB, until_ended

from gateway.workerpool.questions import RequestRefused, WorkerLost
from gateway.workerpool.remote.trust import Trust
from wire.arena import ArenaFull, RegionTooLarge
from wire.frames import Outcome

pytestmark = pytest.mark.slow

NAME = f"{NODE}/{SLOT}"


@pytest.fixture(params=["grpc", "unix"])
def listen(request, tmp_path):
    return "grpc://127.0.0.1:0" if request.param == "grpc" else f"unix:{tmp_path}/pool.sock"


@pytest.fixture
def start_pool(tmp_path):
    """Start pools that end with the test, over one store."""
    with contextlib.ExitStack() as stack:

        def start(listen, *arguments, **settings):
            return stack.enter_context(LivePool(tmp_path, listen, *arguments, **settings))

        yield start


@pytest.fixture
async def join(tmp_path):
    """Start gateways' sides that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings):
            return await stack.enter_async_context(GatewaySide(tmp_path / "store", **settings))

        yield start


async def test_two_gateways_get_their_answers_and_share_the_credits(start_pool, join, listen):
    start_pool(listen)
    first_side, second_side = await join(name="g1"), await join(name="g2")
    first = await first_side.slot()
    assert first.credits == 4
    second = await second_side.slot()
    assert second.credits == 2
    assert first.hello.pid == second.hello.pid
    for gateway, data in ((first, b"one"), (second, b"two")):
        servable, _ = await gateway.load()
        done, output = await gateway.run(servable, data)
        assert (done.outcome, output) == (Outcome.OK, data)
    await second_side.leave()
    servable, _ = await first.load()
    for _ in range(4):
        await first.run(servable, b"x")
    await first.until(lambda: first.credits == 4)


@pytest.mark.long
async def test_gateway_that_is_killed_gives_its_credits_to_the_other(start_pool, join, listen, tmp_path):
    start_pool(listen)
    first = await (await join()).slot()
    script = Path(__file__).with_name("other_gateway.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert (await asyncio.to_thread(other.stdout.readline)).strip() == "running"
            servable, _ = await first.load()
            for _ in range(4):  # what it holds too many of goes back
                await first.run(servable, b"x")
            assert first.credits == 2
        finally:
            other.kill()
    await first.until(lambda: first.credits == 4)
    done, output = await first.run(servable, b"on it goes")
    assert (done.outcome, output) == (Outcome.OK, b"on it goes")


@pytest.mark.long
async def test_gateway_that_freezes_gives_its_credits_to_the_other(start_pool, join, tmp_path):
    start_pool("grpc://127.0.0.1:0")
    first = await (await join()).slot()
    script = Path(__file__).with_name("other_gateway.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert (await asyncio.to_thread(other.stdout.readline)).strip() == "running"
            servable, _ = await first.load()
            for _ in range(4):
                await first.run(servable, b"x")
            assert first.credits == 2
            other.send_signal(signal.SIGSTOP)
            await first.until(lambda: first.credits == 4)
        finally:
            other.kill()


async def test_large_tensor_arrives_whole(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    servable, _ = await gateway.load()
    data = os.urandom(1 * MIB) * 20
    done, output = await gateway.run(servable, data)
    assert done.outcome == Outcome.OK
    assert hashlib.sha256(output).digest() == hashlib.sha256(data).digest()
    assert 0 < done.received_ns <= done.started_ns <= done.ended_ns <= time.monotonic_ns()


async def test_unix_link_shares_memory_and_grpc_link_does_not(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    servable, _ = await gateway.load()
    await gateway.run(servable, b"x")
    assert (gateway.link.arena_mapped_bytes > 0) is listen.startswith("unix:")


@pytest.mark.long
async def test_batch_is_cancelled_before_it_starts_and_expires_elsewhere(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    servable, _ = await gateway.load(delay_us=300_000, width=2)
    running, waiting = gateway.send(servable, b"1"), gateway.send(servable, b"2")
    late = gateway.send(servable, b"3", deadline_ns=time.monotonic_ns() + 50_000_000)
    gateway.link.cancel(waiting)
    assert (await gateway.answer(running)).outcome == Outcome.OK
    assert (await gateway.answer(waiting)).outcome == Outcome.CANCELLED
    assert (await gateway.answer(late)).outcome == Outcome.EXPIRED


@pytest.mark.long
async def test_killed_worker_is_lost_with_its_reason_and_comes_again(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    servable, _ = await gateway.load(crash_on=66)
    gateway.send(servable, b"B")
    await gateway.until_up(2)
    assert gateway.downs == [f"worker {SLOT} was killed by SIGKILL"]
    assert gateway.worker.restarts == 1
    assert not gateway.worker.way_lost
    servable, _ = await gateway.load()
    assert (await gateway.run(servable, b"x"))[1] == b"x"


@pytest.mark.long
async def test_load_that_ends_the_worker_is_known_as_its_cause(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    with pytest.raises(WorkerLost) as caught:
        await gateway.load(load="crash")
    assert caught.value.begun


@pytest.mark.long
async def test_end_of_the_worker_is_told_to_a_gateway_in_the_midst_of_sending(start_pool, join):
    """Whose message is on its way hears of the end all the same, not of a broken connection."""
    start_pool("grpc://127.0.0.1:0")
    gateway = await (await join()).slot()
    servable, _ = await gateway.load(crash_on=66)
    gateway.send(servable, b"B")
    gateway.send(servable, bytes(64 * MIB))
    await gateway.until(lambda: gateway.downs)
    assert gateway.downs == [f"worker {SLOT} was killed by SIGKILL"]


@pytest.mark.long
async def test_hung_worker_is_ended_by_its_pool(start_pool, join, listen):
    start_pool(listen)
    gateway = await (await join()).slot()
    pid = gateway.hello.pid
    servable, _ = await gateway.load(hang_on=72)
    gateway.send(servable, b"H")
    gateway.worker.kill("a run hangs")
    await gateway.until(lambda: gateway.ups == 2)
    assert gateway.downs == ["a run hangs"]
    await until_ended(pid)
    assert gateway.hello.pid != pid


@pytest.mark.long
async def test_pool_that_is_killed_is_found_again_with_its_worker(start_pool, join, tmp_path):
    """The worker outlives its pool by the grace period, and the next pool takes it up."""
    pool = start_pool("grpc://127.0.0.1:0")
    gateway = await (await join()).slot()
    servable, _ = await gateway.load()
    assert (await gateway.run(servable, b"x"))[1] == b"x"
    pool.process.kill()
    pool.process.wait()
    await gateway.until(lambda: gateway.downs)
    assert gateway.downs[0].startswith("the connection to its pool was lost")
    assert gateway.worker.way_lost
    start_pool(f"grpc://127.0.0.1:{pool.port}")
    pid = gateway.hello.pid
    await gateway.until_up(2)
    assert gateway.hello.pid == pid
    servable, _ = await gateway.load()
    assert (await gateway.run(servable, b"y"))[1] == b"y"


@pytest.mark.long
async def test_unix_link_outlives_its_pool(start_pool, join, listen, tmp_path):
    pool = start_pool(f"unix:{tmp_path}/pool.sock")
    gateway = await (await join()).slot()
    servable, _ = await gateway.load()
    pool.process.kill()
    pool.process.wait()
    assert (await gateway.run(servable, b"x"))[1] == b"x"
    start_pool(f"unix:{tmp_path}/pool.sock")
    assert (await gateway.run(servable, b"y"))[1] == b"y"
    assert gateway.downs == []


@pytest.mark.long
async def test_slot_goes_when_its_pool_does_not_come_back(start_pool, join, listen):
    pool = start_pool(listen)
    side = await join()
    gateway = await side.slot()
    side.slots_changed.clear()
    pool.send(signal.SIGTERM)
    assert await asyncio.to_thread(pool.process.wait, LIMIT_S) == 0
    await side.until(lambda: not side.pool.slots)
    assert gateway.downs == ["its pool ends: this pool ends"]
    assert side.slots_changed.is_set()
    assert side.discovery.problems == {}


async def test_pool_that_ends_finishes_what_runs(start_pool, join, listen):
    pool = start_pool(listen)
    gateway = await (await join()).slot()
    servable, _ = await gateway.load(delay_us=700_000)
    batch = gateway.send(servable, b"last")
    pool.send(signal.SIGTERM)
    await gateway.until(lambda: gateway.downs)
    assert gateway.done[batch].outcome == Outcome.OK
    assert gateway.done[batch].outputs[0].size_bytes == len(b"last")
    with pytest.raises(ArenaFull):
        gateway.link.run(9, servable, 1, [], (), 0)
    assert await asyncio.to_thread(pool.process.wait, LIMIT_S) == 0
    await until_ended(gateway.hello.pid)


@pytest.mark.long
async def test_frozen_pool_is_noticed(start_pool, join):
    pool = start_pool("grpc://127.0.0.1:0")
    gateway = await (await join()).slot()
    pool.send(signal.SIGSTOP)
    began = time.monotonic()
    await gateway.until(lambda: gateway.downs)
    assert time.monotonic() - began < 12
    pool.send(signal.SIGCONT)
    await gateway.until_up(2)


@pytest.mark.long
async def test_models_stay_for_gateways_that_come_again_in_time(start_pool, join, listen):
    start_pool(listen, "--grace-s=60")
    side = await join()
    _, before = await (await side.slot()).load(load_delay_us=100_000)
    await side.leave()
    _, after = await (await (await join()).slot()).load(load_delay_us=100_000)
    assert after == before  # as it was measured when it was loaded


@pytest.mark.long
async def test_models_go_when_no_gateway_comes_in_time(start_pool, join, listen, eventually):
    start_pool(listen, "--grace-s=0.2")
    side = await join()
    _, before = await (await side.slot()).load(load_delay_us=100_000)
    await side.leave()
    await asyncio.sleep(1.0)  # nothing tells from outside that a model is gone
    _, after = await (await (await join()).slot()).load(load_delay_us=100_000)
    assert after != before


async def test_pool_fetches_sources_itself(start_pool, join, tmp_path):
    start_pool("grpc://127.0.0.1:0")
    gateway = await (await join()).slot()
    file = tmp_path / "model.onnx"
    file.write_bytes(b"anything")
    digest = f"sha256:{hashlib.sha256(b'anything').hexdigest()}"
    await gateway.load(path=f"file://{file}#{digest}")
    with pytest.raises(RequestRefused, match="has the digest") as wrong:
        await gateway.load(path=f"file://{file}#sha256:{'0' * 64}")
    assert wrong.value.retryable  # it may still be being copied
    with pytest.raises(RequestRefused, match="No such file") as missing:
        await gateway.load(path=f"file://{tmp_path}/nothing.onnx")
    assert missing.value.retryable


@pytest.mark.long
async def test_batch_over_the_pools_limit_is_refused_at_once(start_pool, join):
    start_pool("grpc://127.0.0.1:0", "--arena-mib=1", "--arena-budget-mib=4")
    gateway = await (await join()).slot()
    servable, _ = await gateway.load(expand=2)
    with pytest.raises(RegionTooLarge):
        gateway.send(servable, bytes(5 * MIB))
    assert gateway.credits == 4
    done, _ = await gateway.run(servable, bytes(3 * MIB))  # its output is too large
    assert done.outcome == Outcome.TOO_LARGE
    assert (await gateway.run(servable, b"x"))[1] == b"xx"


@pytest.mark.long
async def test_many_batches_at_once_keep_to_the_allowance(start_pool, join):
    start_pool("grpc://127.0.0.1:0", "--arena-mib=1")
    gateway = await (await join()).slot()
    servable, _ = await gateway.load()
    data = [bytes([i]) * (300 << 10) for i in range(30)]
    sent, answers = {}, []
    waiting = list(data)
    async with asyncio.timeout(LIMIT_S):
        while len(answers) < len(data):
            while waiting:
                try:
                    batch = gateway.send(servable, waiting[0])
                except ArenaFull:
                    break
                sent[batch] = waiting.pop(0)
            assert gateway.link.arena_used_bytes <= MIB
            batch = next(iter(sent))
            done = await gateway.answer(batch)
            answers.append(bytes(gateway.link.view(done.outputs[0])) == sent.pop(batch))
            gateway.link.free(done.outputs)
    assert answers == [True] * len(data)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "other"):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / f"{name}.ca")
        for holder in ("pool.example", "gateway.example", "stranger.example"):
            issued = authority.issue_cert(holder)
            issued.cert_chain_pems[0].write_to_path(folder / f"{name}.{holder}.crt")
            issued.private_key_pem.write_to_path(folder / f"{name}.{holder}.key")
    return folder


def secured(folder):
    return (
        f"--tls-cert={folder / 'ours.pool.example.crt'}",
        f"--tls-key={folder / 'ours.pool.example.key'}",
        f"--tls-client-ca={folder / 'ours.ca'}",
        "--allow-gateway=gateway.example",
    )


def trust(folder, ca="ours", by="ours", name="gateway.example", identities=("pool.example",)):
    return Trust(
        folder / f"{ca}.ca",
        folder / f"{by}.{name}.crt",
        folder / f"{by}.{name}.key",
        frozenset(identities),
    )


async def test_both_sides_are_known_by_their_certificates(start_pool, join, certificates):
    start_pool("grpc://127.0.0.1:0", *secured(certificates))
    gateway = await (await join(trust=trust(certificates))).slot()
    servable, _ = await gateway.load()
    assert (await gateway.run(servable, b"x"))[1] == b"x"


@pytest.mark.parametrize(
    ("whom", "problem"),
    [
        ({"ca": "other"}, "CERTIFICATE_VERIFY_FAILED"),
        ({"by": "other"}, "grpc://127.0.0.1"),
        ({"name": "stranger.example"}, "not allowed here: stranger.example"),
        ({"identities": ("another.example",)}, "its identity pool.example is none of those"),
    ],
    ids=["pool of another CA", "gateway of another CA", "gateway of another name", "pool of another name"],
)
async def test_what_is_not_trusted_is_not_connected_to(start_pool, join, certificates, whom, problem):
    pool = start_pool("grpc://127.0.0.1:0", *secured(certificates))
    side = await join(trust=trust(certificates, **whom))
    await side.until(lambda: side.discovery.problems)
    (said,) = side.discovery.problems.values()
    assert problem in said
    assert side.pool.slots == {}
    if "name" in whom:
        assert pool.logged("stranger.example")


@pytest.mark.long
async def test_plain_text_is_not_spoken_to_a_pool_with_a_certificate(start_pool, join, certificates):
    start_pool("grpc://127.0.0.1:0", *secured(certificates))
    side = await join()
    await side.until(lambda: side.discovery.problems)
    assert "this gateway has no CA" in next(iter(side.discovery.problems.values()))


@pytest.mark.long
async def test_second_pool_of_a_name_waits_and_says_so(start_pool, join, tmp_path, eventually):
    first = start_pool("grpc://127.0.0.1:0")
    side = await join()
    await side.until(lambda: side.pool.slots)
    second = start_pool(f"unix:{tmp_path}/second.sock", f"--pool-folder={tmp_path / 'second'}")
    await eventually(lambda: second.logged("Pools on several machines need names of their own"))
    gateway = await side.slot()
    assert gateway.worker.connected_to == f"grpc://127.0.0.1:{first.port}"
    first.send(signal.SIGTERM)
    await side.until(lambda: not side.pool.workers)  # the slot was given up
    gateway = await side.slot()
    assert gateway.worker.connected_to == f"unix:{tmp_path}/second.sock"


def test_pool_serves_while_its_store_is_away(start_pool):
    pool = start_pool("grpc://127.0.0.1:0", store="etcd://127.0.0.1:1/nobody")
    assert pool.ready.startswith(f"ready node={NODE} slots={SLOT} listen=")
    assert pool.logged("the slots are registered later")
    pool.send(signal.SIGTERM)
    assert pool.process.wait(LIMIT_S) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen=grpc://0.0.0.0:0", "--slot=cpu"], "is open to other machines"),
        (["--listen=grpc://0.0.0.0:0", "--insecure"], "--advertise host:port"),
        (["--listen=tcp://here"], "expected unix:/path or grpc://host:port"),
        (["--listen=grpc://127.0.0.1:0", "--slot=gpu:0"], "expected cpu"),
        (["--listen=grpc://127.0.0.1:0", "--node=a/b"], "--node 'a/b'"),
        (["--listen=grpc://127.0.0.1:0", "--tls-cert=a.crt"], "belong together"),
        (["--listen=grpc://127.0.0.1:0", "--store=http://etcd:2379"], 'did you mean "etcd"'),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path, arguments, message):
    command = [*live_pool.COMMAND, f"--store={tmp_path / 'store'}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_address_in_use_is_refused(start_pool, tmp_path, listen):
    first = start_pool(listen)
    taken = f"grpc://127.0.0.1:{first.port}" if listen.startswith("grpc") else listen
    with pytest.raises(AssertionError, match="cannot listen on"):
        start_pool(taken, f"--pool-folder={tmp_path / 'second'}")
    with pytest.raises(AssertionError, match="another pool uses the folder"):
        start_pool("grpc://127.0.0.1:0")
