"""What is too large, too many or too full for etcd, and endpoints that are no etcd."""

import asyncio
import random
import socket

import grpc
import pytest
from etcd_process import EtcdProcess, free_port
from etcd_relay import Relay
from store_home import LIMIT_S, closing, following

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.etcd.assembly import Assembly
from gateway.config.store.etcd.store import open_etcd
from gateway.config.store.etcd.timing import Timing
from gateway.config.store.opening import open_store
from gateway.config.store.store import (
    CommitTooLarge,
    CommitUnclear,
    Conflict,
    Expect,
    Put,
    Span,
    StoreAway,
    StoreRefused,
)

pytestmark = pytest.mark.slow

MODELS = Span.folder("models")


async def test_a_large_revision_comes_in_fragments_and_as_one_change(tmp_path, monkeypatch):
    replies = []
    add = Assembly.add

    def noting(self, reply):
        replies.append(reply.fragment)
        return add(self, reply)

    monkeypatch.setattr(Assembly, "add", noting)
    keys = [f"models/{n:03}" for n in range(120)]
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store:
            before = await store.commit([Put("models/first", b"")])
            revision = await store.commit([Put(key, key.encode() * 1000) for key in keys])
        await etcd.stop()
        etcd.flags += ["--max-request-bytes", "1000"]  # a fragment has 512 KiB more than that
        await etcd.start()
        async with open_store(etcd.url) as store, closing(store.watch(MODELS, after=before)) as watch:
            change = await following(watch)
    assert replies[0], "etcd did not send fragments"
    assert change.revision == revision
    assert not change.resync
    assert {entry.key: entry.value for entry in change.puts} == {key: key.encode() * 1000 for key in keys}


async def test_what_is_larger_than_a_reply_may_be_is_read_in_smaller_pages(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        async with open_store(etcd.url) as store:
            for n in range(40):
                await store.commit([Put(f"models/{n:02}", bytes([n]) * 1_000_000)])
            entries = (await store.read(MODELS)).entries
            assert [entry.value[:1] for entry in entries] == [bytes([n]) for n in range(40)]
            assert {len(entry.value) for entry in entries} == {1_000_000}
            # The answer to a conflict is as large.
            stale = [Expect(entry.key, entry.revision - (n == 7)) for n, entry in enumerate(entries)]
            with pytest.raises(Conflict) as raised:
                await store.commit([Put("models/new", b"")], stale)
            assert raised.value.found == {"models/07": entries[7]}
            assert await store.get("models/new") is None


@pytest.mark.parametrize("last", [1, 499, 500, 501, 1200, 5000])
async def test_the_highest_keys_are_read_in_pages_too(etcd_of_module, last):
    async with open_store(etcd_of_module.at("many")) as store:
        entries = (await store.read(MODELS)).entries
        if not entries:
            for start in range(0, 1200, 120):
                await store.commit([Put(f"models/{n:04}", b"") for n in range(start, start + 120)])
            entries = (await store.read(MODELS)).entries
        assert len(entries) == 1200
        assert (await store.read(MODELS, last=last)).entries == entries[-last:]


@pytest.fixture(scope="module")
def etcd_of_module(tmp_path_factory):
    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as process:
        yield process


async def test_a_limit_that_etcd_has_lowered_is_a_commit_too_large(tmp_path):
    with EtcdProcess(tmp_path, flags=["--max-request-bytes", "10000", "--max-txn-ops", "20"]) as etcd:
        async with open_store(etcd.url) as store:
            for size in (20_000, 1_400_000):
                with pytest.raises(CommitTooLarge):
                    await store.commit([Put("models/a", bytes(size))])
            with pytest.raises(CommitTooLarge):
                await store.commit([Put(f"models/{n}", b"") for n in range(21)])
            assert (await store.read(MODELS)).entries == ()


async def test_a_full_database_is_refused_with_what_helps(tmp_path):
    with EtcdProcess(tmp_path, flags=["--quota-backend-bytes", "2000000"]) as etcd:
        async with open_store(etcd.url) as store:
            with pytest.raises(StoreRefused, match="etcdctl alarm disarm"):  # noqa: PT012 - one of them
                for _ in range(20):
                    await store.commit([Put("models/a", bytes(500_000))])
            assert (await store.get("models/a")).value == bytes(500_000)
            assert store.away == ""


async def test_a_dead_first_endpoint_does_not_matter(tmp_path):
    with EtcdProcess(tmp_path) as etcd:
        url = f"etcd://127.0.0.1:{free_port()},{etcd.endpoint},{etcd.endpoint}/crossgate"
        orders = set()
        for seed in range(4):
            address = EtcdAddress.parse(url)
            async with open_etcd(address, random=random.Random(seed)) as store:
                orders.add(store._session.endpoint.name)  # which is asked first, is random
                async with asyncio.timeout(1.5), closing(store.watch(MODELS)) as watch:
                    await following(watch)
                    revision = await store.commit([Put("models/a", b"%d" % seed)])
                    assert (await following(watch)).revision == revision
                    assert store.away == ""
        assert len(orders) == 2


async def test_a_port_that_says_nothing_is_left(tmp_path):
    with EtcdProcess(tmp_path) as etcd, socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        async with asyncio.timeout(LIMIT_S):
            for seed in range(2):
                address = EtcdAddress.parse(f"etcd://{endpoint},{etcd.endpoint}/crossgate")
                async with open_etcd(address, Timing(try_s=0.5), random.Random(seed)) as store:
                    await store.commit([Put("models/a", b"%d" % seed)])
        address = EtcdAddress.parse(f"etcd://{endpoint}/crossgate")
        async with open_etcd(address, Timing(try_s=0.5, call_s=1.0), random.Random(0)) as store:
            with pytest.raises(StoreAway) as raised:
                await store.commit([Put("models/a", b"")])
            assert endpoint in str(raised.value)
            assert not isinstance(raised.value, CommitUnclear)


async def test_a_grpc_server_that_is_no_etcd_is_named(tmp_path):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        address = EtcdAddress.parse(f"etcd://127.0.0.1:{port}/crossgate")
        async with open_etcd(address, Timing(call_s=1.0), random.Random(0)) as store:
            with pytest.raises(StoreAway, match="no etcd 3 answers there"):
                await store.get("models/a")
    finally:
        await server.stop(None)


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
async def test_names_and_ipv6_are_endpoints(etcd_of_module, host):
    try:
        relay = await Relay(etcd_of_module.port, host="::1" if host == "[::1]" else "127.0.0.1").__aenter__()
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    try:
        async with open_store(f"etcd://{host}:{relay.port}/names") as store:
            assert await store.get("models/a") is None
    finally:
        await relay.cut()


async def test_keys_of_others_below_our_prefix_do_no_harm(etcd_of_module):
    # "/foreign/models/\xff", which is no UTF-8
    etcd_of_module.post("kv/put", {"key": "L2ZvcmVpZ24vbW9kZWxzL/8=", "value": "MQ=="})
    async with open_store(etcd_of_module.at("foreign")) as store, closing(store.watch(MODELS)) as watch:
        (entry,) = (await following(watch)).puts
        assert entry.value == b"1"
        assert await store.get(entry.key) == entry
        await store.commit([Put(entry.key, b"2")], [Expect(entry.key, entry.revision)])
        assert (await following(watch)).puts[0].value == b"2"
