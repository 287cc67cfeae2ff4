"""One leads; whoever was leader and does not know that it is no more writes nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from gateway.config.store.election import Deposed, Election, FencedStore
from gateway.config.store.opening import open_store
from gateway.config.store.store import Conflict, Expect, Put

LEADER = """
import asyncio, sys
from gateway.config.store.election import Deposed, Election
from gateway.config.store.opening import open_store
from gateway.config.store.store import Put

async def lead(store):
    print("leads", flush=True)
    try:
        while True:
            await write(store)
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:  # as one that has not noticed would go on
        await write(store)
        raise

async def write(store):
    try:
        await store.commit([Put("models/led", sys.argv[2].encode())])
    except Deposed:
        print("refused", flush=True)
        raise

async def main():
    async with open_store(sys.argv[1]) as store:
        await Election(store, "test", sys.argv[2], lead, ttl_s=2.0).run()

asyncio.run(main())
"""


@pytest.fixture
async def store(home):
    async with home.open() as store:
        yield store


class Seat:
    """A candidate in this process: `leads` is set while it does, `store` is what it writes with."""

    def __init__(self, store, name):
        self.leads = asyncio.Event()
        self.store: FencedStore | None = None
        self.election = Election(store, "test", name, self._lead, ttl_s=3.0)

    async def _lead(self, store):
        self.store = store
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leads.clear()


@asynccontextmanager
async def running(*seats):
    tasks = [asyncio.create_task(seat.election.run()) for seat in seats]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*seats):
    waits = [asyncio.create_task(seat.leads.wait()) for seat in seats]
    async with asyncio.timeout(10):
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    (leader,) = [seat for seat in seats if seat.leads.is_set()]
    return leader


@pytest.mark.slow
async def test_one_of_two_leads_and_the_other_follows_when_it_goes(store):
    one, other = Seat(store, "one"), Seat(store, "other")
    async with running(one):
        assert await first_of(one) is one
        async with running(other):
            await asyncio.sleep(0)
            assert not other.leads.is_set()
    async with running(other):
        assert await first_of(other) is other
    assert await store.get("elections/test") is None


@pytest.mark.slow
async def test_who_lost_its_lease_writes_nothing(store):
    one, other = Seat(store, "one"), Seat(store, "other")
    async with running(one):
        await first_of(one)
        fenced = one.store
        assert await fenced.commit([Put("models/led", b"1")])
        lease = (await store.get("elections/test")).lease
        await store.revoke(lease)
        async with running(other):
            await first_of(other)
            with pytest.raises(Deposed):
                await fenced.commit([Put("models/led", b"2")])
    assert (await store.get("models/led")).value == b"1"


async def test_a_conflict_of_a_leader_is_a_conflict(store):
    seat = Seat(store, "one")
    async with running(seat):
        await first_of(seat)
        with pytest.raises(Conflict) as refused:
            await seat.store.commit([Put("models/led", b"1")], [Expect("models/led", 77)])
    assert list(refused.value.found) == ["models/led"]


def start(url, name):
    command = [sys.executable, "-P", "-c", LEADER, url, name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
async def test_a_frozen_leader_is_followed_and_refused_when_it_wakes(etcd_place):
    """Not with a file: who is frozen in the middle of a commit there holds up all others."""
    url = etcd_place.fresh()
    first = start(url, "first")
    second = None
    try:
        assert await asyncio.to_thread(first.stdout.readline) == "leads\n"
        first.send_signal(signal.SIGSTOP)
        second = start(url, "second")
        assert await asyncio.to_thread(second.stdout.readline) == "leads\n"
        first.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(first.stdout.readline) == "refused\n"
        async with open_store(url) as store:
            seen = (await store.get("models/led")).value
        assert seen == b"second"
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
                process.stdout.close()
