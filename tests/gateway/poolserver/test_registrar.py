from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from gateway.clock import MonotonicClock
from gateway.config.keys import WORKERS
from gateway.config.registration import Registration, write_registration
from gateway.config.store.opening import open_store
from gateway.config.store.store import Delete, Put, StoreAway, StoreRefused
from gateway.poolserver.registrar import Registrar

CPU = Registration("n", "cpu", "cpu", 2, "grpc://10.0.0.7:1", 7, "0.1.0", 1, 1)
CUDA = Registration("n", "cuda:0", "cuda:0", 2, "grpc://10.0.0.7:1", 7, "0.1.0", 1, 1)
LIMIT_S = 10.0


@pytest.fixture
async def store(tmp_path):
    async with open_store(str(tmp_path / "store")) as store:
        yield store


@pytest.fixture
async def start(store):
    """Start registrars that end with the test."""
    tasks = []

    def begin(*registrations):
        registrar = Registrar(store, registrations, 10.0, MonotonicClock())
        tasks.append(asyncio.ensure_future(registrar.run()))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(store, expected):
    """Wait until these are what is registered."""
    async with asyncio.timeout(LIMIT_S):
        async for _ in store.watch(WORKERS):
            found = {entry.key: entry.value for entry in (await store.read(WORKERS)).entries}
            if found == {each.key: write_registration(each) for each in expected}:
                return


async def test_slots_are_registered_under_a_lease_and_gone_at_the_end(store, start):
    task = start(CPU, CUDA)
    await until(store, [CPU, CUDA])
    assert all(entry.lease for entry in (await store.read(WORKERS)).entries)
    task.cancel()
    await asyncio.wait((task,))
    assert (await store.read(WORKERS)).entries == ()


async def test_earlier_process_of_the_same_pool_is_replaced(store, start):
    await store.commit([Put(CPU.key, write_registration(msgspec.structs.replace(CPU, pid=3)))])
    start(CPU)
    await until(store, [CPU])


async def test_two_pools_at_one_address_do_not_replace_each_other_for_ever(store, start, caplog):
    start(CPU)
    await until(store, [CPU])
    later = msgspec.structs.replace(CPU, pid=8)
    start(later)
    await until(store, [later])
    async with asyncio.timeout(LIMIT_S):
        while "has registered it" not in caplog.text:
            await asyncio.sleep(0)
    await until(store, [later])


async def test_malformed_registration_is_replaced(store, start):
    await store.commit([Put(CPU.key, b"nonsense")])
    start(CPU)
    await until(store, [CPU])


@pytest.mark.parametrize(("address", "machine"), [("grpc://10.0.0.8:1", ""), ("unix:/run/x.sock", "b")])
async def test_other_pools_registration_stays_until_it_goes(store, start, address, machine, caplog):
    other = msgspec.structs.replace(CPU, address=address, machine=machine, pid=3)
    ours = msgspec.structs.replace(CPU, address="unix:/run/x.sock")
    await store.commit([Put(other.key, write_registration(other))])
    start(ours, msgspec.structs.replace(CUDA, address="unix:/run/x.sock"))
    await until(store, [other, msgspec.structs.replace(CUDA, address="unix:/run/x.sock")])
    assert f"the pool at {address} (pid 3) has registered it" in caplog.text
    await store.commit([Delete(CPU.key)])
    await until(store, [ours, msgspec.structs.replace(CUDA, address="unix:/run/x.sock")])


async def test_registration_that_somebody_deletes_is_written_again(store, start):
    start(CPU)
    await until(store, [CPU])
    await store.commit([Delete(CPU.key)])
    await until(store, [CPU])


class Broken:
    where = "a store"

    def __init__(self, error):
        self._error = error

    async def get(self, key):
        raise self._error


async def test_store_that_refuses_keeps_a_pool_from_starting():
    with pytest.raises(StoreRefused):
        await Registrar(Broken(StoreRefused("no")), [CPU], 10.0, MonotonicClock()).check()


async def test_store_that_is_away_does_not_keep_a_pool_from_starting(caplog):
    await Registrar(Broken(StoreAway("no answer")), [CPU], 10.0, MonotonicClock()).check()
    assert "registered later" in caplog.text
