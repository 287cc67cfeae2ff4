"""When leases in a file expire, and by whose hand."""

import contextlib

import pytest
from local_home import MODELS, FakeClock, held
from store_home import Replica, closing, follow_to, following

from gateway.config.store.local import open_local
from gateway.config.store.local_boot import BootClock
from gateway.config.store.store import Conflict, Expect, LeaseGone, Put


async def test_a_lease_expires_at_its_time_without_a_watch(file):
    clock = FakeClock()
    async with open_local(file, clock=clock) as store:
        lease = await store.grant(10.0)
        written = await store.commit([Put("models/a", b"1", lease)])
        clock.ns += 10 * 10**9 - 1
        assert await held(store) == {"models/a": b"1"}
        assert await store.remaining_s(lease) == pytest.approx(1e-9)
        clock.ns += 1
        snapshot = await store.read(MODELS)
        assert (snapshot.entries, snapshot.revision) == ((), written + 1)
        with pytest.raises(LeaseGone):
            await store.renew(lease)


async def test_a_lease_that_expired_cannot_be_used_by_anybody(file):
    clock = FakeClock()
    async with open_local(file, clock=clock) as store, open_local(file, clock=clock) as other:
        for use in (
            lambda lease: other.renew(lease),
            lambda lease: other.remaining_s(lease),
            lambda lease: other.commit([Put("models/b", b"1", lease)]),
        ):
            lease = await store.grant(10.0)
            await store.commit([Put("models/a", b"1", lease)])
            clock.advance(10.0)
            with pytest.raises(LeaseGone):
                await use(lease)
            assert await held(store) == {}


async def test_an_entry_that_expired_is_a_conflict(file):
    clock = FakeClock()
    async with open_local(file, clock=clock) as store:
        revision = await store.commit([Put("models/a", b"1", await store.grant(10.0))])
        clock.advance(10.0)
        with pytest.raises(Conflict) as caught:
            await store.commit([Put("models/a", b"2")], [Expect("models/a", revision)])
        assert caught.value.found == {"models/a": None}


async def test_after_a_reboot_every_lease_has_expired(file):
    async with open_local(file, clock=FakeClock("the boot before")) as store:
        lease = await store.grant(1000.0)
        await store.commit([Put("models/a", b"1", lease), Put("models/b", b"1")])
    async with open_local(file, clock=FakeClock()) as store:
        assert await held(store) == {"models/b": b"1"}
        with pytest.raises(LeaseGone):
            await store.remaining_s(lease)


async def test_of_many_stores_that_notice_an_expiry_one_commits_it(file):
    clock = FakeClock()
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_local(file, clock=clock)) for _ in range(5)]
        watches = [await stack.enter_async_context(closing(store.watch(MODELS))) for store in stores]
        revision = await stores[0].commit([Put("models/a", b"1", await stores[0].grant(10.0))])
        for watch in watches:
            await follow_to(watch, Replica(), revision)
        clock.advance(10.0)
        for watch in watches:
            change = await following(watch)
            assert (change.deletes, change.revision) == (("models/a",), revision + 1)
        assert (await stores[0].read(MODELS)).revision == revision + 1


@pytest.mark.parametrize("ttl_s", [float("inf"), float("nan"), 1e12])
async def test_a_lease_for_ever_is_refused(file, ttl_s):
    async with open_local(file) as store:
        with pytest.raises(ValueError, match="lease"):
            await store.grant(ttl_s)


def test_every_process_of_a_boot_has_the_same_time():
    one, other = BootClock(), BootClock()
    assert one.boot == other.boot != ""
    assert one.now_ns() <= other.now_ns() < one.now_ns() + 60 * 10**9
