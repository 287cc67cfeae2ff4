"""Real worker processes, seen from the pool that starts them and from the links that talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from worker_connection import KIB, LIMIT_S, MIB, Connection, Watched, until_ended

from gateway.clock import MonotonicClock
from gateway.workerpool.link import RequestRefused, WorkerLink, WorkerLost
from gateway.workerpool.pool import Pool
from gateway.workerpool.slot import parse_slot
from wire.arena import ArenaFull, RegionTooLarge
from wire.frames import (
    Kind,
    Outcome,
    Probe,
    Probed,
    Report,
    Signature,
    TensorSpec,
    Unload,
)

pytestmark = pytest.mark.slow

CPU = sorted(os.sched_getaffinity(0))[0]


@pytest.fixture
async def start():
    """Start workers in a pool of their own; all processes end with the test."""
    pids = []
    async with contextlib.AsyncExitStack() as stack:

        async def start(text=f"cpu:{CPU}", **options):
            options = {"segment_bytes": 64 * KIB, "budget_bytes": MIB, **options}
            slot = parse_slot(text)
            pool = await stack.enter_async_context(Pool([slot], MonotonicClock(), **options))
            watched = Watched(pool, slot.name)
            pool.observe(watched.worker_events())
            await watched.start()
            pids.append(watched.worker.pid)
            return watched

        yield start
    for pid in pids:
        await until_ended(pid)


@pytest.fixture
async def second():
    """Connect another gateway to a worker."""
    opened = []

    async def connect(path, **options):
        connection = await Connection().connect(path, **options)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.link.close("the test is over")


@pytest.fixture
def identity(tmp_path):
    """An ONNX model that answers with its bytes."""
    pair = [helper.make_tensor_value_info(n, TensorProto.UINT8, ("n", "k")) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", pair[:1], pair[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def threads(pid):
    """Return {thread id: CPUs that it may run on}."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        found[int(task.name)] = status.partition("Cpus_allowed_list:")[2].split()[0]
    return found


def mapped(pid, name):
    return name in Path(f"/proc/{pid}/maps").read_text()


def environment(pid):
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().partition("=")[::2] for entry in entries if entry)


# -- where it runs ---


async def test_every_thread_stays_on_its_cpus_before_and_after_a_load(start, identity):
    worker = await start()
    pid = worker.worker.pid
    assert set(threads(pid).values()) == {str(CPU)}
    assert len(threads(pid)) == 2  # the one that reads, the one that loads
    for engine in ("onnxruntime", "openvino"):
        servable, _ = await worker.load(path=identity, runtime=engine)
        assert await worker.run(servable, b"abc") == (worker.done[max(worker.done)], b"abc")
        assert mapped(pid, engine)
    allowed = threads(pid)
    assert set(allowed.values()) == {str(CPU)}
    assert len(allowed) <= 8


async def test_onnxruntime_alone_has_as_many_threads_as_its_slot_says(start, identity):
    worker = await start(f"cpu:{CPU}")
    servable, _ = await worker.load(path=identity, runtime="onnxruntime")
    await worker.run(servable, b"abc")
    assert len(threads(worker.worker.pid)) <= 4  # and one lane, and one that onnxruntime keeps for itself


async def test_nothing_is_imported_before_a_model_needs_it(start, identity):
    worker = await start()
    pid = worker.worker.pid
    assert worker.hello.runtimes["onnxruntime"] == "installed"
    assert not mapped(pid, "onnxruntime")
    assert not mapped(pid, "openvino")
    await worker.load(path=identity, runtime="onnxruntime")
    assert mapped(pid, "onnxruntime")
    assert not mapped(pid, "openvino")


async def test_a_worker_sees_its_own_cuda_device_or_none(start):
    cpu, cuda = await start(), await start("cuda:1")
    assert environment(cpu.worker.pid)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(cuda.worker.pid)["CUDA_VISIBLE_DEVICES"] == "1"
    assert (cuda.hello.device, cuda.hello.capacity) == ("cuda:1", 2)


async def test_a_slot_with_a_long_list_of_cpus_starts(start):
    listed = ",".join([str(CPU)] * 60)
    worker = await start(f"cpu,cpus={listed}")
    assert worker.hello.capacity == 1


# -- its life ---


async def test_it_is_started_again_with_backoff_when_killed(start):
    worker = await start()
    pids = [worker.worker.pid]
    for restarts in (1, 2):
        os.kill(pids[-1], signal.SIGKILL)
        await worker.until_up(1 + restarts)
        pids.append(worker.worker.pid)
        assert worker.worker.restarts == restarts
    assert len(set(pids)) == 3
    assert worker.downs == [f"worker cpu:{CPU} was killed by SIGKILL"] * 2
    down, up = worker.times[3:5]
    assert up - down >= 0.075  # the second failure in a row waits


async def test_a_worker_lost_in_a_request_says_so(start):
    worker = await start()
    with pytest.raises(WorkerLost, match="the worker closed the connection"):
        await worker.load(load="crash")
    await worker.until_up(2)
    await worker.load()


async def test_a_run_that_crashes_takes_the_worker_and_the_next_one_works(start):
    worker = await start()
    servable, _ = await worker.load(crash_on=7)
    worker.send(servable, bytes([7]))
    await worker.until_up(2)
    assert worker.downs == [f"worker cpu:{CPU} was killed by SIGKILL"]
    servable, _ = await worker.load(crash_on=7)
    assert (await worker.run(servable, bytes([6])))[1] == bytes([6])


async def test_a_hung_run_is_killed_and_its_reason_reported(start):
    worker = await start()
    servable, _ = await worker.load(hang_on=7)
    worker.send(servable, bytes([7]))
    report = await worker.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)
    assert report.servables.keys() == {servable}  # it hangs in a lane, not in the loop
    worker.worker.kill("a run of model m did not end within 5 ms")
    await worker.until_up(2)
    assert worker.downs == ["a run of model m did not end within 5 ms"]


async def test_the_pool_ends_its_workers(start):
    async with Pool([parse_slot("cpu")], MonotonicClock()) as pool:
        watched = Watched(pool, "cpu")
        pool.observe(watched.worker_events())
        await watched.start()
        pid = watched.worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


CHILD = """
    import asyncio, sys
    from gateway.clock import MonotonicClock
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.slot import parse_slot
    from gateway.workerpool.worker import WorkerEvents
    from wire.frames import Kind, Load, Loaded, ServableSpec, Signature, TensorSpec

    async def main():
        loop = asyncio.get_running_loop()
        up = loop.create_future()
        async with Pool([parse_slot("cpu")], MonotonicClock(), grace_s=float(sys.argv[1])) as pool:
            pool.observe(WorkerEvents(
                lambda worker, link, hello: up.set_result((worker, link)),
                lambda *_: None, lambda *_: None, lambda *_: None, lambda *_: None))
            pool.start("cpu")
            worker, link = await up
            one = (TensorSpec("x", "UINT8", (-1, -1)),)
            two = (TensorSpec("y", "UINT8", (-1, -1)),)
            spec = ServableSpec("m", "1", "", "loopback", "cpu", 1, 1, {}, Signature(one, two, "loopback"))
            loaded = await link.request(Kind.LOAD, Load(1, spec), Loaded, 20)
            print(worker.pid, loaded.load_ns, worker._rendezvous.path, flush=True)
            await loop.create_future()

    asyncio.run(main())
"""


@pytest.fixture
async def child_gateway():
    """Start a gateway in a process of its own, load a model there, and kill it when told to."""
    ended = []

    async def start(grace_s):
        command = [sys.executable, "-P", "-c", textwrap.dedent(CHILD), str(grace_s)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                async with asyncio.timeout(LIMIT_S):
                    pid, load_ns, path = (await asyncio.to_thread(process.stdout.readline)).split()
            finally:
                process.kill()
        ended.append((int(pid), Path(path)))
        return int(pid), int(load_ns), Path(path)

    yield start
    for pid, path in ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await until_ended(pid)
        shutil.rmtree(path.parent, ignore_errors=True)


async def test_it_outlives_a_killed_gateway_by_the_grace_period_only(child_gateway):
    began = time.monotonic()
    pid, _, _ = await child_gateway(0.2)
    await until_ended(pid)
    assert time.monotonic() - began < LIMIT_S / 2


async def test_a_gateway_that_comes_within_the_grace_period_finds_its_models_loaded(child_gateway, second):
    pid, load_ns, path = await child_gateway(20)
    gateway = await second(path)
    servable, loaded = await gateway.load()
    assert (gateway.hello.pid, loaded.load_ns) == (pid, load_ns)
    assert (await gateway.run(servable, b"again"))[1] == b"again"


async def test_a_pool_that_starts_within_the_grace_period_adopts_the_worker(child_gateway):
    pid, load_ns, path = await child_gateway(20)
    async with Pool([parse_slot("cpu")], MonotonicClock(), grace_s=20.0, folder=path.parent) as pool:
        watched = Watched(pool, "cpu")
        pool.observe(watched.worker_events())
        await watched.start()
        _, loaded = await watched.load()
        assert (watched.worker.pid, loaded.load_ns) == (pid, load_ns)
        assert (watched.worker.restarts, watched.downs) == (0, [])
    await until_ended(pid)


async def test_the_grace_period_begins_when_the_gateway_goes_however_quiet_it_was(child_gateway, second):
    _, _, path = await child_gateway(0.4)
    first = await second(path)
    servable, _ = await first.load(delay_us=700_000)
    await first.answer(first.send(servable, b"x"))  # nothing else is heard for longer than the grace period
    first.link.close("gone")
    again = await second(path)
    assert again.hello.pid == first.hello.pid


# -- several gateways ---


async def test_credits_are_divided_between_gateways(start, second):
    worker = await start(f"cpu:{CPU},capacity=2")
    assert worker.credits == 4
    servable, _ = await worker.load()
    other = await second(worker.path)
    await other.until(lambda: other.credits == 2)
    assert worker.credits == 4  # what was granted is not taken back
    returned = [(await worker.run(servable, b"x"))[0].credits for _ in range(4)]
    assert returned == [0, 0, 1, 1]
    assert worker.credits == 2
    other.link.close("gone")
    await worker.until(lambda: worker.credits == 4)


async def test_sessions_are_shared_and_kept_for_the_grace_period_beside_another_gateway(start, second):
    worker = await start(grace_s=20)
    first = await second(worker.path)
    _, loaded = await first.load()
    assert (await worker.load())[1] == loaded
    only_first, before = await first.load(delay_us=1)
    first.link.close("gone")
    again = await second(worker.path)
    assert (await again.load(delay_us=1))[1] == before
    assert only_first


async def test_sessions_of_a_gateway_that_does_not_come_back_are_closed(start, second):
    worker = await start(grace_s=0.1)
    slow, _ = await worker.load(delay_us=300_000)
    first = await second(worker.path)
    _, before = await first.load(delay_us=1)
    first.link.close("gone")
    await worker.run(slow, b"x")
    await worker.run(slow, b"x")  # longer than the grace period
    assert (await worker.load(delay_us=1))[1] != before


async def test_a_gateway_that_breaks_the_protocol_harms_nobody_else(start, second, capfd):
    worker = await start()
    servable, _ = await worker.load()
    other = await second(worker.path)
    other.link._write(b"\x00" * 4 + b"\xff" * 12)  # a frame of an unknown kind
    await other.until(lambda: other.lost)
    assert other.lost.startswith("the worker closed the link: ")
    assert (await worker.run(servable, b"ok"))[1] == b"ok"
    assert "link closed" in capfd.readouterr().err


# -- batches ---


async def test_a_staged_batch_that_is_cancelled_is_answered_and_not_run(start):
    worker = await start()
    servable, _ = await worker.load(delay_us=150_000)
    running, staged = worker.send(servable, b"a"), worker.send(servable, b"b")
    worker.link.cancel(staged)
    first, last = await worker.answer(running), await worker.answer(staged)
    assert (first.outcome, last.outcome) == (Outcome.OK, Outcome.CANCELLED)
    assert last.outputs == ()
    assert last.ended_ns - last.started_ns < 100_000_000
    assert worker.credits == 2


async def test_a_batch_past_its_deadline_is_not_run(start):
    worker = await start()
    servable, _ = await worker.load(delay_us=100_000)
    running = worker.send(servable, b"a")
    late = worker.send(servable, b"b", deadline_ns=time.monotonic_ns() + 10_000_000)
    passed = worker.send(servable, b"c", deadline_ns=1)
    outcomes = [(await worker.answer(batch)).outcome for batch in (running, late, passed)]
    assert outcomes == [Outcome.OK, Outcome.EXPIRED, Outcome.EXPIRED]


async def test_staged_batches_of_an_unloaded_model_still_run(start):
    worker = await start()
    servable, _ = await worker.load(delay_us=100_000)
    batches = [worker.send(servable, b"a"), worker.send(servable, b"b")]
    worker.link.forget(servable)
    await worker.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)
    assert [(await worker.answer(batch)).outcome for batch in batches] == [Outcome.OK, Outcome.OK]
    after = await worker.answer(worker.send(servable, b"c"))
    assert (after.outcome, after.message) == (Outcome.UNKNOWN_SERVABLE, "this servable is not loaded")
    assert worker.credits == 2


async def test_a_failed_run_says_why_and_returns_its_credit(start):
    worker = await start()
    servable, _ = await worker.load(fail_on=3)
    done, _ = await worker.run(servable, bytes([3]))
    assert (done.outcome, done.message) == (Outcome.MODEL_FAILED, "declared to fail on 3")
    assert worker.credits == 2
    assert (await worker.run(servable, bytes([4])))[1] == bytes([4])


async def test_runs_at_once_are_bounded_by_count_and_capacity(start):
    worker = await start(f"cpu:{CPU},capacity=3")
    two, _ = await worker.load(count=2, delay_us=50_000)
    one, _ = await worker.load(count=1, delay_us=50_001)
    batches = [worker.send(two, b"a") for _ in range(4)] + [worker.send(one, b"b") for _ in range(2)]
    spans = [((d := await worker.answer(b)).started_ns, d.ended_ns) for b in batches]

    def most(some):
        return max(sum(a <= at < b for a, b in some) for at, _ in some)

    assert most(spans) == 3
    assert most(spans[:4]) == 2
    assert most(spans[4:]) == 1


async def test_a_wide_servable_runs_alone_on_its_slot(start):
    worker = await start(f"cpu:{CPU},capacity=2")
    wide, _ = await worker.load(width=8, delay_us=30_000)
    narrow, _ = await worker.load(delay_us=30_001)
    batches = [worker.send(wide, b"a"), worker.send(narrow, b"b"), worker.send(narrow, b"c")]
    spans = [((d := await worker.answer(b)).started_ns, d.ended_ns) for b in batches]
    assert all(spans[0][1] <= start or end <= spans[0][0] for start, end in spans[1:])


# -- control requests ---


@pytest.mark.parametrize(
    ("runtime", "options", "message"),
    [
        ("loopback", {"load": "fail"}, "declared to fail at load"),
        ("loopback", {"expand": "many"}, "adapter failed: ValueError: invalid literal"),
        ("onnxruntime", {}, "is not a file"),
        ("tf", {}, "unknown runtime 'tf'"),
    ],
)
async def test_a_load_that_fails_is_answered_and_the_loader_lives(start, capfd, runtime, options, message):
    worker = await start()
    with pytest.raises(RequestRefused, match=message):
        await worker.load(runtime=runtime, **options)
    servable, _ = await worker.load()
    assert (await worker.run(servable, b"x"))[1] == b"x"
    assert capfd.readouterr().err.count("Traceback") == ("ValueError" in message)


async def test_a_declared_signature_is_compared_with_the_models(start, identity):
    worker = await start()
    wrong = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("z", "UINT8", (-1, 4)),))
    with pytest.raises(RequestRefused) as caught:
        await worker.load(runtime="onnxruntime", path=identity, signature=wrong)
    assert str(caught.value) == (
        "the declared signature is not the model's: input x is UINT8, not FP32; "
        "output z does not exist; the model has y"
    )


async def test_a_servable_is_probed_while_another_runs(start):
    worker = await start()
    slow, _ = await worker.load(delay_us=100_000)
    mixing, _ = await worker.load(mixes_rows=True)
    batch = worker.send(slow, b"x")
    probed = await worker.link.request(Kind.PROBE, Probe(mixing, 8, None), Probed, LIMIT_S)
    assert not probed.batchable
    assert batch not in worker.done
    assert (await worker.answer(batch)).outcome == Outcome.OK


# -- the arenas ---


async def test_a_full_output_arena_holds_the_run_up_and_fails_nothing(start):
    worker = await start(f"cpu:{CPU},capacity=2")
    servable, _ = await worker.load(count=2, expand=40)
    batches = [worker.send(servable, bytes([i]) * KIB) for i in range(3)]
    await worker.until(lambda: worker.done)
    await worker.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)  # the loop is not held up
    assert len(worker.done) == 1
    for finished in range(1, 4):
        await worker.until(lambda count=finished: len(worker.done) == count)
        done = worker.done[max(worker.done, key=lambda batch: worker.done[batch].ended_ns)]
        (tensor,) = done.outputs
        value = worker.link.view(tensor)[0]
        assert bytes(worker.link.view(tensor)) == bytes([value]) * 40 * KIB
        worker.link.free(done.outputs)
    assert all(worker.done[batch].outcome == Outcome.OK for batch in batches)


async def test_a_full_input_arena_refuses_the_batch_until_one_is_answered(start):
    worker = await start()
    servable, _ = await worker.load(delay_us=50_000, expand=1)
    first = worker.send(servable, bytes(40 * KIB))
    with pytest.raises(ArenaFull):
        worker.send(servable, bytes(40 * KIB))
    await worker.answer(first)
    worker.link.free(worker.done[first].outputs)
    assert (await worker.run(servable, bytes(40 * KIB)))[1] == bytes(40 * KIB)
    assert worker.link.arena_used_bytes == 0


async def strides(worker, servable, sizes, expand, budget_bytes):
    """Run one request of each size: every one succeeds or its error names the limit. Return the outcomes."""
    outcomes = []
    for size in sizes:
        data = np.random.default_rng(size).bytes(size)
        if size > budget_bytes:
            with pytest.raises(RegionTooLarge, match=str(budget_bytes)):
                worker.send(servable, data)
            outcomes.append("input")
            continue
        done, output = await worker.run(servable, data)
        outcomes.append(Outcome(done.outcome).name)
        if done.outcome == Outcome.OK:
            assert output == data * expand
        else:
            assert done.outcome == Outcome.TOO_LARGE
            assert f"the arena's budget of {budget_bytes} bytes" in done.message
    assert worker.link.arena_used_bytes == 0
    return outcomes


async def test_requests_of_every_size_succeed_or_name_the_limit(start):
    worker = await start()
    servable, _ = await worker.load(expand=100)
    sizes = [
        1,
        2,
        63,
        64,
        65,
        655,
        656,
        1000,
        10 * KIB,
        MIB // 100,
        11 * KIB,
        64 * KIB,
        65 * KIB,
        MIB,
        MIB + 1,
        1,
    ]
    outcomes = await strides(worker, servable, sizes, 100, MIB)
    assert outcomes == ["OK"] * 10 + ["TOO_LARGE"] * 4 + ["input", "OK"]
    report = await worker.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)
    assert report.arena_bytes == 2 * 64 * KIB  # what was large is unmapped


@pytest.mark.long
async def test_requests_up_to_64_mib_with_a_thousandfold_output(start):
    worker = await start(segment_bytes=16 * MIB, budget_bytes=256 * MIB)
    servable, _ = await worker.load(expand=1000)
    sizes = [
        1,
        64,
        KIB,
        16 * KIB,
        17 * KIB,
        64 * KIB,
        256 * KIB,
        MIB,
        16 * MIB,
        16 * MIB + 1,
        64 * MIB,
        300 * MIB,
    ]
    outcomes = await strides(worker, servable, sizes, 1000, 256 * MIB)
    assert outcomes == ["OK"] * 7 + ["TOO_LARGE"] * 4 + ["input"]


async def test_no_descriptor_is_left_open_by_large_requests(start):
    worker = await start()
    servable, _ = await worker.load()
    await worker.run(servable, b"x")

    def open_here():
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{worker.worker.pid}/fd"))

    before = open_here()
    for _ in range(20):
        await worker.run(servable, bytes(100 * KIB))
    await worker.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)
    assert open_here() == before


async def test_a_lost_link_takes_no_batches_and_opens_nothing(start):
    worker = await start()
    servable, _ = await worker.load()
    worker.link.close("for the test")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ArenaFull):
        worker.send(servable, b"x")
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_worker_that_never_greets_is_given_up():
    ours, theirs = socket.socketpair()
    connection = Connection()
    with theirs:
        connection.link = WorkerLink(
            ours,
            asyncio.get_running_loop(),
            connection.events(),
            name="g",
            segment_bytes=KIB,
            budget_bytes=KIB,
        )
        with pytest.raises(TimeoutError):
            await connection.link.greet(0.01)
        connection.link.close("no worker")
        assert connection.lost == "no worker"
        assert theirs.recv(100) == b""  # nothing is said to what has not greeted


async def test_no_model_is_charged_for_its_engine(start, tmp_path):
    """The first load imports ONNX Runtime, which takes some 30 MiB."""
    watched = await start()
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
    )
    file = tmp_path / "identity.onnx"
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), file)
    _, loaded = await watched.load(path=file, runtime="onnxruntime", signature=None)
    assert loaded.memory_bytes < 15 * MIB
