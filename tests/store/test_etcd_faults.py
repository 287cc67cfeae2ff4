"""An etcd that is killed, frozen, cut off, compacted or restored, under a watch and under commits."""

import asyncio
import random
import shutil

import pytest
from etcd_process import EtcdCluster, EtcdProcess
from etcd_relay import Relay
from store_home import LIMIT_S, Replica, closing, follow_to, following

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.etcd.assembly import Assembly
from gateway.config.store.etcd.store import open_etcd
from gateway.config.store.etcd.timing import Timing
from gateway.config.store.opening import open_store
from gateway.config.store.store import CommitUnclear, Delete, Expect, Put, Span, StoreAway

pytestmark = pytest.mark.slow

MODELS = Span.folder("models")
HASTY = Timing(try_s=0.5, call_s=2.0, commit_s=1.0, quiet_s=0.4, ask_s=0.2, dead_s=1.2, longest_wait_s=0.3)


def open_hasty(url, timing=HASTY, seed=1):
    return open_etcd(EtcdAddress.parse(url), timing, random.Random(seed))


async def until(condition, limit_s=LIMIT_S):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def put_in(etcd, key, value=b"1"):
    """Write as somebody else does, and return the revision."""
    async with open_store(etcd.url) as store:
        return await store.commit([Put(key, value)])


async def test_a_killed_and_restarted_etcd_costs_a_watch_nothing(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            for n in range(3):
                await store.commit([Put(f"models/{n}", b"1"), Put("models/same", b"%d" % n)])
                await etcd.stop()
                await until(lambda: store.away)
                assert etcd.endpoint in store.away
                await etcd.start()
                await put_in(etcd, f"models/{n}-while-away")
                last = await put_in(etcd, f"models/{n}", b"2")
                while replica.revision < last:
                    change = await following(watch)
                    assert not change.resync
                    replica.apply(change)  # which refuses a repetition
                await until(lambda: not store.away)
            assert replica.values == await etcd.everything()


async def test_a_frozen_etcd_is_noticed_and_costs_a_watch_nothing(tmp_path):
    """With the times that everybody has."""
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store, closing(store.watch(MODELS)) as watch:
            first = await following(watch)
            etcd.freeze()
            try:
                await until(lambda: store.away, limit_s=10.0)
                async with asyncio.timeout(8.0):
                    read, written = await asyncio.gather(
                        store.get("models/a"),
                        store.commit([Put("models/a", b"lost")]),
                        return_exceptions=True,
                    )
                assert isinstance(read, StoreAway)
                assert etcd.endpoint in str(read)
                assert isinstance(written, StoreAway)
                assert not isinstance(written, CommitUnclear)
            finally:
                etcd.thaw()
            await until(lambda: not store.away)
            revision = await store.commit([Put("models/a", b"1")])
            assert revision == first.revision + 1
            change = await following(watch)
            assert (change.revision, change.resync, change.puts[0].value) == (revision, False, b"1")


async def test_whichever_member_of_a_cluster_freezes_others_take_over(tmp_path):
    with EtcdCluster(tmp_path) as cluster:
        async with open_hasty(cluster.url) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            lease = await store.grant(30.0)
            for member in cluster.members:
                member.freeze()
                try:
                    async with asyncio.timeout(10.0):
                        await store.renew(lease)
                        entry = await store.get("models/a")
                        last = await commit_surely(store, "models/a", entry)
                        await follow_to(watch, replica, last)
                finally:
                    member.thaw()
                assert store.away == ""


async def commit_surely(store, key, entry):
    """As whoever commits by compare-and-swap does: tries again, and looks where it is unclear."""
    revision = entry.revision if entry else 0
    while True:
        try:
            return await store.commit([Put(key, b"%d" % revision)], [Expect(key, revision)])
        except CommitUnclear:
            entry = await store.get(key)
            if entry is not None and entry.revision != revision:
                return entry.revision
        except StoreAway:
            await asyncio.sleep(0.05)


async def test_a_cluster_without_a_majority_is_away_until_it_has_one(tmp_path):
    with EtcdCluster(tmp_path) as cluster:
        async with open_hasty(cluster.url) as store, closing(store.watch(MODELS)) as watch:
            await following(watch)
            await cluster.members[0].stop()
            await cluster.members[1].stop()
            await until(lambda: store.away)
            with pytest.raises(StoreAway):
                await store.get("models/a")
            cluster.members[0].launch()
            cluster.members[1].launch()
            await until(lambda: not store.away)
            last = await commit_surely(store, "models/a", None)
            assert (await following(watch)).revision == last


async def test_a_watch_that_was_compacted_while_away_reads_again(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with (
            Relay(etcd.port) as relay,
            open_store(relay.url) as store,
            closing(store.watch(MODELS)) as watch,
        ):
            await store.commit([Put("models/kept", b"1"), Put("models/gone", b"1")])
            change = await following(watch)
            while not change.puts:
                change = await following(watch)
            await relay.cut()
            async with open_store(etcd.url) as other:
                await other.commit([Delete("models/gone")])
                last = await other.commit([Put("models/new", b"1")])
            await etcd.compact()
            await relay.mend()
            change = await following(watch)
            assert change.resync
            assert change.revision >= last
            assert [entry.key for entry in change.puts] == ["models/kept", "models/new"]
            last = await store.commit([Delete("models/kept")])
            assert (await following(watch)).deletes == ("models/kept",)


async def test_a_connection_that_falls_silent_is_left(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with (
            Relay(etcd.port) as relay,
            open_hasty(relay.url) as store,
            closing(store.watch(MODELS)) as watch,
        ):
            await following(watch)
            relay.swallows_answers = True
            last = await put_in(etcd, "models/a")
            await until(lambda: store.away)
            relay.swallows_answers = False
            await relay.cut()  # what was swallowed does not come again on the old connection
            await relay.mend()
            change = await following(watch)
            assert (change.revision, change.resync) == (last, False)


async def test_a_commit_without_an_answer_is_unclear(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with Relay(etcd.port) as relay, open_hasty(relay.url) as store:
            await store.commit([Put("models/a", b"1")])
            relay.swallows_answers = True
            with pytest.raises(CommitUnclear, match="models/b"):
                await store.commit([Put("models/b", b"1")])
            # An endpoint that failed is asked whether it lives before it gets another commit.
            with pytest.raises(StoreAway) as raised:
                await store.commit([Put("models/c", b"1")])
            assert not isinstance(raised.value, CommitUnclear)
            assert await etcd.everything() == {"models/a": b"1", "models/b": b"1"}


async def test_a_cluster_restored_from_a_backup_is_read_again(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store, closing(store.watch(MODELS)) as watch:
            await store.commit([Put("models/old", b"1")])
            await etcd.stop()
            shutil.copytree(tmp_path / "one", tmp_path / "backup")
            await etcd.start()
            replica = Replica()
            last = await put_in(etcd, "models/new")
            last = await put_in(etcd, "models/newer")
            await follow_to(watch, replica, last)
            await etcd.stop()
            shutil.rmtree(tmp_path / "one")
            (tmp_path / "backup").rename(tmp_path / "one")
            await etcd.start()
            change = await following(watch)
            assert change.resync
            assert change.revision < last
            assert [entry.key for entry in change.puts] == ["models/old"]


async def test_another_cluster_behind_the_same_address_is_read_anew(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store, closing(store.watch(MODELS)) as watch:
            revision = await store.commit([Put("models/old", b"1")])
            await follow_to(watch, Replica(), revision)
            await etcd.stop()
            shutil.rmtree(tmp_path / "one")
            etcd.flags += ["--initial-cluster-token", "another"]
            await etcd.start()
            for _ in range(5):  # its revisions reach beyond those of the first
                await put_in(etcd, "models/other")
            change = await following(watch)
            assert change.resync
            assert [entry.key for entry in change.puts] == ["models/other"]


async def test_what_etcd_did_not_tell_is_found_and_healed(tmp_path, monkeypatch, caplog):
    lost = []
    add = Assembly.add

    def lose_one(self, reply):
        if not lost and any(event.kv.key.endswith(b"lost") for event in reply.events):
            lost.append(reply)
            return None
        return add(self, reply)

    monkeypatch.setattr(Assembly, "add", lose_one)
    timing = Timing(quiet_s=0.2, ask_s=0.1, dead_s=1.0, relist_s=0.3)
    with EtcdProcess(tmp_path) as etcd:
        async with open_hasty(etcd.url, timing) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            await follow_to(watch, replica, await store.commit([Put("models/a", b"1")]))
            last = await store.commit([Put("models/lost", b"1")])
            change = await following(watch)
            assert change.resync
            assert change.revision >= last
            assert [entry.key for entry in change.puts] == ["models/a", "models/lost"]
            assert "did not tell us all changes" in caplog.text


async def test_comparing_changes_nothing_where_nothing_was_lost(tmp_path, caplog):
    timing = Timing(quiet_s=0.2, ask_s=0.1, dead_s=0.5, relist_s=0.05)
    with EtcdProcess(tmp_path) as etcd:
        async with open_hasty(etcd.url, timing) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            for n in range(100):
                last = await store.commit([Put(f"models/{n % 7}", b"%d" % n), Delete(f"models/{n % 5}-")])
                await asyncio.sleep(0.01)
            while replica.revision < last:
                change = await following(watch)
                assert not change.resync
                replica.apply(change)
            assert "did not tell" not in caplog.text
