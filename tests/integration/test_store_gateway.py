"""Gateways that follow a store: documents take effect, bad ones harm nothing, and the store may be away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import numpy as np
import pytest
from background_load import BackgroundLoad
from live_gateway import wait_until
from store_gateway import EtcdPlace, LocalPlace, Operator, StoreGateway, loopback

from crossgate import InvalidRequest, NotFound
from gateway.config.override import MARGIN_S, Override

pytestmark = pytest.mark.slow

ROW = {"INPUT0": np.ones((1, 4), np.float32)}
ROWS = {"INPUT0": np.ones((3, 4), np.float32)}


@pytest.fixture
def etcd(tmp_path):
    from etcd_process import EtcdProcess

    (tmp_path / "etcd").mkdir()
    with EtcdProcess(tmp_path / "etcd") as process:
        yield EtcdPlace(process)


@pytest.fixture(params=["local", "etcd"])
def place(request, tmp_path):
    return LocalPlace(tmp_path) if request.param == "local" else request.getfixturevalue("etcd")


@pytest.fixture
def operator(place):
    return Operator(place.url)


@pytest.fixture
def start(place, tmp_path):
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(url="", **settings):
            log = tmp_path / f"gateway-{next(numbers)}.log"
            gateway = StoreGateway(url or place.url, log, tmp_path / "state", **settings)
            start.gateways.append(gateway)
            return stack.enter_context(gateway)

        start.gateways = []
        yield start


async def stop(gateway):
    gateway.process.terminate()
    assert await asyncio.to_thread(gateway.wait) == 0


def override(**patch):
    made = Override(patch, 2.0, "me", "c1", "2026-01-01T00:00:00Z")
    return {each: getattr(made, each) for each in made.__struct_fields__}


async def until(condition, timeout_s=15.0):
    """Wait for a coroutine function to give something true, and return that."""
    async with asyncio.timeout(timeout_s):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


async def test_documents_come_change_and_go(start, operator, tmp_path, eventually):
    first = await operator.put(a=loopback(tmp_path / "m"))
    gateway = start()
    async with gateway.async_client() as client:
        await client.infer("a", ROWS)
        changed = await operator.put(
            a=loopback(tmp_path / "m", batching={"max_batch_size": 2}), b=loopback(tmp_path / "m")
        )
        await eventually(lambda: gateway.ready_versions("b") == ["1"])
        with pytest.raises(InvalidRequest, match="max_batch_size 2"):
            await client.infer("a", ROWS)
        assert gateway.metric("crossgate_config_revision", state="applied") == changed > first
        status = await until(lambda: operator.status("b"))
        assert status["versions"]["1"]["state"] == "READY"
        await operator.delete("models/b")
        await eventually(lambda: not gateway.index("b"))
        with pytest.raises(NotFound):
            await client.infer("b", ROW)
        assert gateway.log_text().count("is ready") == 2  # a policy loads nothing again


async def test_an_override_reverts_by_itself(start, operator, tmp_path, eventually):
    await operator.put(a=loopback(tmp_path / "m"))
    gateway = start()
    async with gateway.async_client() as client:

        async def refused():
            try:
                await client.infer("a", ROWS)
            except InvalidRequest:
                return True
            return False

        await operator.write(
            {"overrides/a/1": override(batching={"max_batch_size": 2})}, lease_s=2 + MARGIN_S
        )
        await until(refused)

        async def taken():
            return not await refused()

        await until(taken)


BROKEN = {
    "no JSON": (b'{"versions":', "line 1"),
    "unknown field": ({"batchin": {}}, "batchin"),
    "newer schema": ({"schema": "crossgate/v2"}, "crossgate/v2"),
}


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_bad_documents_harm_nothing_and_are_told_where_operators_look(
    start, operator, tmp_path, eventually
):
    good = loopback(tmp_path / "m")
    await operator.put(a=good)
    gateway = start()
    async with BackgroundLoad(gateway, "a") as load:
        for value, said in BROKEN.values():
            await operator.put(a=value if isinstance(value, bytes) else {**good, **value})
            await eventually(lambda said=said: said in gateway.notes())
            assert gateway.readiness()["ready"]
            assert gateway.metric("crossgate_config_problems") == 1
            status = await until(lambda: operator.status("a"))
            assert status["versions"]["1"]["state"] == "READY"
            assert any(said in reason for _, reason in gateway.index("a").values())
        await operator.write({
            "overrides/a/bad": b'{"patch": ' + b'{"a":' * 5000,
            "overrides/a/worse": b'{"patch": {"a": "\xff"}, "for_s": 1, "by": "", "change": "", "at": ""}',
            "policies/gateway": {"log_level": "loud"},
            "models/a/b": b"",
            "models/nul": {**good, "versions": {"1": {"source": "file:///a%00b"}}},
        })  # fmt: skip
        await eventually(lambda: "policies/gateway" in gateway.notes())
        assert gateway.logged("which is no key of ours")
        await operator.delete("overrides/a/bad", "overrides/a/worse", "policies/gateway", "models/nul")
        await operator.put(a=good)
        await eventually(lambda: gateway.notes() == "")
    assert load.answered > 10
    assert not load.failures


async def test_the_store_may_go_away_and_come_back_under_load(place, start, operator, tmp_path, eventually):
    await operator.put(a=loopback(tmp_path / "m"), b=loopback(tmp_path / "m"))
    gateway = start()
    async with BackgroundLoad(gateway, "a") as load:
        await place.leave()
        await eventually(lambda: "has been away for" in gateway.notes(), 30.0)
        assert "what was heard last is served" in gateway.notes()
        assert gateway.readiness()["ready"]
        await eventually(lambda: gateway.metric("crossgate_config_away_seconds") > 0)
        await place.come_back()
        await eventually(lambda: gateway.notes() == "", 30.0)
        assert gateway.metric("crossgate_config_away_seconds") == 0
        await operator.delete("models/b")
        await eventually(lambda: not gateway.index("b"))
    assert not load.failures


async def test_a_gateway_starts_without_its_store_and_catches_up(etcd, tmp_path, eventually):
    operator = Operator(etcd.url)
    await operator.put(kept=loopback(tmp_path / "m"), deleted=loopback(tmp_path / "m"))
    with StoreGateway(etcd.url, tmp_path / "1.log", tmp_path / "state") as first:
        await eventually(lambda: first.ready_versions("deleted") == ["1"])
    await operator.delete("models/deleted")
    await operator.put(added=loopback(tmp_path / "m"))
    await etcd.leave()
    with StoreGateway(etcd.url, tmp_path / "2.log", tmp_path / "state") as second:
        async with second.async_client() as client:
            await client.infer("kept", ROW)
            await client.infer("deleted", ROW)
        assert "the last good state on disk is served" in second.notes()
        await eventually(lambda: second.metric("crossgate_config_away_seconds") > 0)
        assert not second.index("added")
        await etcd.come_back()
        await eventually(lambda: second.ready_versions("added") == ["1"], 30.0)
        await eventually(lambda: not second.index("deleted"))
        assert second.notes() == ""
        assert second.metric("crossgate_config_away_seconds") == 0
        async with second.async_client() as client:
            await client.infer("kept", ROW)
            with pytest.raises(NotFound):
                await client.infer("deleted", ROW)


async def test_a_store_that_hangs_at_the_start_is_no_reason_not_to_serve(etcd, tmp_path, eventually):
    operator = Operator(etcd.url)
    await operator.put(a=loopback(tmp_path / "m"))
    with StoreGateway(etcd.url, tmp_path / "1.log", tmp_path / "state"):
        pass
    etcd._process.freeze()
    try:
        with StoreGateway(etcd.url, tmp_path / "2.log", tmp_path / "state") as second:
            async with second.async_client() as client:
                await client.infer("a", ROW)
            assert "the last good state on disk is served" in second.notes()
            etcd._process.thaw()
            await eventually(lambda: second.notes() == "", 30.0)
    finally:
        etcd._process.thaw()


async def test_without_disk_a_gateway_waits_for_its_store_and_says_so(etcd, tmp_path, eventually):
    await Operator(etcd.url).put(a=loopback(tmp_path / "m"))
    await etcd.leave()
    from etcd_process import free_port

    ports = free_port(), free_port()
    arguments = (f"--grpc-port={ports[0]}", f"--http-port={ports[1]}")
    waiting = StoreGateway(etcd.url, tmp_path / "1.log", tmp_path / "state", arguments=arguments, ready=False)
    waiting.grpc, waiting.http = (f"127.0.0.1:{port}" for port in ports)
    with waiting:

        def readiness():
            with contextlib.suppress(OSError):
                return waiting.readiness()
            return None

        said = await eventually(lambda: (found := readiness()) and found["notes"] and found, 30.0)
        assert (said["ready"], said["reasons"]) == (False, ["the models have not been read yet"])
        await etcd.come_back()
        await eventually(lambda: (found := readiness()) and found["ready"], 30.0)
        async with waiting.async_client() as client:
            await client.infer("a", ROW)


async def test_what_a_gateway_says_of_itself_is_taken_back_at_its_end(place, start, operator, tmp_path):
    await operator.put(a=loopback(tmp_path / "m"))
    gateway = start()
    assert (await until(lambda: operator.status("a")))["applied"]
    await stop(gateway)
    assert await operator.status("a") == {}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", pytest.param("folder", marks=pytest.mark.long)])
async def test_a_store_that_has_gone_is_no_empty_store(tmp_path, what):
    place, state = tmp_path / "place", tmp_path / "state"
    place.mkdir()
    url = str(place / "s.db")
    await Operator(url).put(a=loopback(tmp_path / "m"))
    with StoreGateway(url, tmp_path / "1.log", state) as gateway:
        wait_until(lambda: gateway.ready_versions("a") == ["1"])
    if what == "file":
        for file in place.iterdir():
            file.rename(tmp_path / file.name)
    else:
        place.rename(tmp_path / "gone")
    with StoreGateway(url, tmp_path / "2.log", state) as gateway:
        wait_until(lambda: gateway.ready_versions("a") == ["1"])
        assert "the last good state on disk" in gateway.readiness()["notes"][0]
