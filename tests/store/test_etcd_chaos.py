"""Everything at once: writers and watches, while etcd is killed, frozen and compacted at random."""

import asyncio
import os
import random
from collections import Counter
from itertools import count

import pytest
from etcd_process import EtcdCluster, EtcdProcess
from store_home import LIMIT_S, Replica, closing, follow_to

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.etcd.store import open_etcd
from gateway.config.store.etcd.timing import Timing
from gateway.config.store.store import CommitUnclear, Conflict, Delete, Expect, Put, Span, StoreAway

MODELS = Span.folder("models")
HASTY = Timing(try_s=0.4, call_s=1.5, commit_s=0.8, quiet_s=0.3, ask_s=0.2, dead_s=1.0, longest_wait_s=0.2)
FAULTS_S = 12.0
SEED = int(os.environ.get("CROSSGATE_TEST_SEED", "20260101"))


class Run:
    """Ends when the faults do; `random` decides everything but the interleaving."""

    def __init__(self, url, seed):
        self.address = EtcdAddress.parse(url)
        self.random = random.Random(seed)
        self.ended = False
        self.outcomes = Counter()  # {outcome: commits}

    def open(self):
        return open_etcd(self.address, HASTY, random.Random(self.random.random()))

    async def write(self):
        """Count up in random keys by compare-and-swap, and create and delete others."""
        async with self.open() as store:
            while not self.ended:
                key, other = (f"models/{kind}{self.random.randrange(8)}" for kind in ("count", "other"))
                try:
                    entry = await store.get(key)
                    value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
                    write = Delete(other) if self.random.random() < 0.5 else Put(other, b"%d" % value)
                    await store.commit([Put(key, b"%d" % (value + 1)), write], [Expect(key, revision)])
                    self.outcomes["applied"] += 1
                except Conflict:
                    self.outcomes["conflict"] += 1
                except CommitUnclear:
                    self.outcomes["unclear"] += 1
                except StoreAway:
                    self.outcomes["away"] += 1
                await asyncio.sleep(self.random.uniform(0.0, 0.02))

    async def follow(self, replica):
        """Until a key says that it was the last."""
        async with self.open() as store, closing(store.watch(MODELS)) as watch:
            async for change in watch:
                replica.apply(change)
                if "models/end" in replica.values:
                    return

    async def follow_on_and_off(self, replica):
        """The same with a watch that is closed and resumed all the time."""
        resume = None
        async with self.open() as store:
            for most in count(1):
                async with closing(store.watch(MODELS, after=resume)) as watch:
                    for _ in range(most % 5 + 1):
                        replica.apply(await anext(watch))
                        resume = replica.revision
                        if "models/end" in replica.values:
                            return

    async def watched(self, harm):
        """Run writers and watches while `harm` lasts; check what they saw."""
        steady, resumed = Replica(), Replica()
        async with asyncio.TaskGroup() as tasks:
            writers = [tasks.create_task(self.write()) for _ in range(2)]
            tasks.create_task(self.follow(steady))
            tasks.create_task(self.follow_on_and_off(resumed))
            await harm
            self.ended = True
            await asyncio.wait(writers)
            async with asyncio.timeout(LIMIT_S), self.open() as store:
                while True:
                    try:
                        last = await store.commit([Put("models/end", b"")])
                        break
                    except StoreAway:
                        await asyncio.sleep(0.1)
                replica = Replica()
                async with closing(store.watch(MODELS)) as watch:
                    await follow_to(watch, replica, last)
        assert steady.values == replica.values
        assert resumed.values == replica.values
        counted = sum(int(value) for key, value in replica.values.items() if "count" in key)
        assert self.outcomes["applied"] > 50, self.outcomes
        assert 0 <= counted - self.outcomes["applied"] <= self.outcomes["unclear"], (SEED, self.outcomes)
        return replica


async def harm(etcd, dice, for_s):
    loop = asyncio.get_running_loop()
    until_s = loop.time() + for_s
    while loop.time() < until_s:
        await asyncio.sleep(dice.uniform(0.0, 1.0))
        match dice.choice(["kill", "freeze", "compact", "compact"]):
            case "kill":
                await etcd.stop()
                await asyncio.sleep(dice.choice([0.0, 0.5, 2.0]))
                await etcd.start()
            case "freeze":
                etcd.freeze()
                await asyncio.sleep(dice.choice([0.1, 1.0, 2.5]))
                etcd.thaw()
            case "compact":
                await etcd.compact()


@pytest.mark.slow
async def test_what_watches_tell_is_what_there_is_whatever_happens_to_etcd(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        run = Run(etcd.url, SEED)
        replica = await run.watched(harm(etcd, random.Random(SEED), FAULTS_S))
        assert replica.values == await etcd.everything()


@pytest.mark.long
async def test_it_is_so_for_a_cluster_too(tmp_path):
    async def harm_one_after_the_other():
        dice = random.Random(SEED)
        for _ in range(4):
            await harm(dice.choice(cluster.members), dice, FAULTS_S / 4)

    with EtcdCluster(tmp_path) as cluster:
        replica = await Run(cluster.url, SEED).watched(harm_one_after_the_other())
        for member in cluster.members:
            assert replica.values == await member.everything()
