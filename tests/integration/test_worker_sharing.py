"""Several pools over one folder: the processes of one `serve`, or a gateway and its successor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import pytest
from worker_connection import BYTES_OF_ROWS, KIB, LIMIT_S, MIB, Watched, until_ended

from gateway.call import BatchInput
from gateway.clock import MonotonicClock
from gateway.workerpool.link import WorkerLost
from gateway.workerpool.pool import Pool
from gateway.workerpool.rendezvous import workers_of
from gateway.workerpool.slot import parse_slot
from wire.frames import Kind, Outcome, Probe, Probed, Report, Unload, WarmedUp, WarmUp

pytestmark = pytest.mark.slow

GRACE_S = 20.0  # longer than any test: what ends at once does not end by it
SLOT = "cpu,capacity=2"


class Gateway:
    """A pool over the folder of others, with a worker for one slot."""

    def __init__(self, folder, slot=SLOT, **options):
        options = {"segment_bytes": 64 * KIB, "budget_bytes": MIB, "grace_s": GRACE_S, **options}
        parsed = parse_slot(slot)
        self.pool = Pool([parsed], MonotonicClock(), folder=folder, **options)
        self.watched = Watched(self.pool, parsed.name)
        self.pool.observe(self.watched.worker_events())
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        await self._stack.enter_async_context(self.pool)
        try:
            return await self.watched.start()
        except BaseException:
            await self.leave()
            raise

    async def leave(self):
        await self._stack.aclose()

    async def __aexit__(self, *_):
        await self.leave()


@pytest.fixture
async def gateways(tmp_path):
    """Start gateways over one folder; with the test all of them leave, and no worker is left."""
    started = []

    async def start(**options):
        gateway = Gateway(tmp_path / "pool", **options)
        started.append(gateway)
        return await gateway.__aenter__()

    start.leave = lambda watched: next(g for g in started if g.watched is watched).leave()
    yield start
    began = time.monotonic()
    for gateway in started:
        await gateway.leave()
    assert time.monotonic() - began < 3 * len(started)
    for process in workers_of(tmp_path / "pool"):
        process.close()
        await until_ended(process.pid)
    assert time.monotonic() - began < GRACE_S / 2


async def test_pools_that_start_together_share_one_worker(gateways):
    watched = await asyncio.gather(*[gateways() for _ in range(4)])
    assert len({each.worker.pid for each in watched}) == 1
    assert [each.hello.pid for each in watched] == [each.worker.pid for each in watched]
    servables = [await each.load() for each in watched]
    assert len({loaded.load_ns for _, loaded in servables}) == 1
    for each, (servable, _) in zip(watched, servables, strict=True):
        assert (await each.run(servable, b"abc"))[1] == b"abc"
    assert [each.worker.restarts for each in watched] == [0] * 4


async def test_credits_are_divided_and_come_back_when_one_leaves(gateways):
    first = await gateways()
    assert first.credits == 4
    other = await gateways()
    assert other.credits == 2
    await gateways.leave(other)
    third = await gateways()
    assert third.credits == 2
    await gateways.leave(first)
    await third.until(lambda: third.credits == 4)


async def test_a_worker_that_dies_is_started_again_by_one_of_them(gateways):
    watched = [await gateways() for _ in range(3)]
    for lives in (2, 3):
        pid = watched[0].worker.pid
        os.kill(pid, signal.SIGKILL)
        for each in watched:
            await each.until_up(lives)
        (again,) = {each.worker.pid for each in watched}
        assert again != pid
        assert sum(each.worker.restarts for each in watched) == lives - 1
        assert all(len(each.downs) == lives - 1 for each in watched)
    assert all("worker cpu,capacity=2" in each.downs[0] for each in watched)


async def test_a_worker_stays_until_the_last_gateway_leaves_and_then_ends_at_once(gateways):
    first, second = await gateways(), await gateways()
    servable, _ = await second.load()
    pid = first.worker.pid
    await gateways.leave(first)
    assert (await second.run(servable, b"x"))[1] == b"x"
    assert second.downs == []
    began = time.monotonic()
    await gateways.leave(second)
    await until_ended(pid)
    assert time.monotonic() - began < GRACE_S / 4


async def test_what_only_one_gateway_had_loaded_is_closed_when_it_leaves(gateways):
    first, second = await gateways(), await gateways()
    _, before = await first.load(delay_us=1)
    await gateways.leave(first)
    assert (await second.load(delay_us=1))[1].load_ns != before.load_ns


async def test_a_hung_worker_is_killed_by_the_gateway_that_leaves(gateways):
    watched = await gateways()
    os.kill(watched.worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    await gateways.leave(watched)
    assert time.monotonic() - began < GRACE_S / 4
    await until_ended(watched.worker.pid)


async def test_a_worker_whose_lane_and_loader_hang_ends_with_its_last_gateway(gateways):
    watched = await gateways()
    servable, _ = await watched.load(hang_on=7)
    watched.send(servable, bytes([7]))
    loading = asyncio.ensure_future(watched.load(load="hang"))
    await watched.until(lambda: watched.credits < 4)
    began = time.monotonic()
    await gateways.leave(watched)
    with pytest.raises(WorkerLost):
        await loading
    await until_ended(watched.worker.pid)
    assert time.monotonic() - began < 2


async def test_a_stopped_worker_is_replaced_for_who_finds_it_by_who_kills_it(gateways):
    first = await gateways()
    os.kill(first.worker.pid, signal.SIGSTOP)
    coming = asyncio.ensure_future(gateways())  # it is connected, and waits for a greeting
    first.worker.kill("it hangs")
    second = await coming
    await first.until_up(2)
    assert first.worker.pid == second.worker.pid
    assert first.downs == ["it hangs"]
    assert second.downs == []


@pytest.mark.parametrize(
    "other", [{"slot": "cpu,capacity=3"}, {"segment_bytes": 128 * KIB}, {"grace_s": 19.0}], ids=str
)
async def test_other_settings_get_another_worker(gateways, other):
    first, second = await gateways(), await gateways(**other)
    assert first.worker.pid != second.worker.pid


# -- what one gateway does is not laid at another's door ---


async def test_a_load_that_waits_behind_one_that_ends_the_worker_has_not_begun(gateways):
    first, second = await gateways(), await gateways()
    culprit = asyncio.ensure_future(first.load(load="crash", load_delay_us=200_000))
    await asyncio.sleep(0)
    await first.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)  # it has been read
    innocent = asyncio.ensure_future(second.load())
    with pytest.raises(WorkerLost) as guilty:
        await culprit
    with pytest.raises(WorkerLost) as waiting:
        await innocent
    assert (guilty.value.begun, waiting.value.begun) == (True, False)
    await second.until_up(2)
    await second.load()


def send_alone(watched, servable, data):
    batch = next(watched._batches)
    rows = [BatchInput("x", "UINT8", (1, len(data)), len(data), [data])]
    watched.link.run(batch, servable, 1, rows, (), 0, alone=True)
    return batch


async def test_a_lone_batch_runs_when_no_gateway_has_anything_beside_it(gateways):
    first, second = await gateways(), await gateways()
    (slow, _), (suspect, _) = await first.load(count=2, delay_us=200_000), await second.load(count=2)
    before = first.send(slow, b"1")
    await first.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)  # it has been read
    alone = send_alone(second, suspect, b"2")
    done = await second.answer(alone)
    ended_ns = (await first.answer(before)).ended_ns
    assert second.begun == [alone]
    assert done.started_ns >= ended_ns
    assert done.outcome == Outcome.OK


async def test_a_lone_batch_that_has_not_begun_says_nothing(gateways):
    first, second = await gateways(), await gateways()
    (slow, _), (suspect, _) = await first.load(delay_us=200_000, crash_on=7), await second.load()
    first.send(slow, b"1")
    first.send(slow, bytes([7]))  # staged
    await first.link.request(Kind.REPORT, Unload(0), Report, LIMIT_S)  # they have been read
    send_alone(second, suspect, b"2")
    await second.until_up(2)
    assert second.begun == []


async def test_probe_and_warm_up_of_an_equal_session_are_done_once(gateways):
    first, second = await gateways(), await gateways()
    answers = []
    for each in (first, second):
        servable, _ = await each.load(signature=BYTES_OF_ROWS)
        warmed = await each.link.request(Kind.WARM_UP, WarmUp(servable, (1, 8), 3), WarmedUp, LIMIT_S)
        probed = await each.link.request(Kind.PROBE, Probe(servable, 8, None), Probed, LIMIT_S)
        answers.append((warmed, probed))
    assert answers[0] == answers[1]
