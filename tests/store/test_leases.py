"""What a keeper keeps is in the store, whatever happens to the store meanwhile."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from local_home import FakeClock
from store_home import LIMIT_S, Replica, closing, following, values

from gateway.clock import MonotonicClock
from gateway.config.store.leases import LeaseKeeper
from gateway.config.store.local import open_local
from gateway.config.store.store import (
    MAX_COMMIT_BYTES,
    MAX_WRITES,
    Change,
    CommitTooLarge,
    CommitUnclear,
    Delete,
    Put,
    Span,
    StoreAway,
    StoreRefused,
)

STATUS = Span.folder("status")
TTL_S = 30.0


class Flaky:
    """A store whose next calls fail as told; `after` they were done, where that is said."""

    def __init__(self, store):
        self._store = store
        self.failures = []
        self.after = False
        self.commits = []
        self.grants = self.renewals = 0
        self.recovered = asyncio.Event()  # a commit went through, and no more failures are left

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, writes, expect=()):
        if self.after and self.failures:
            await self._store.commit(writes, expect)
        self._fail()
        revision = await self._store.commit(writes, expect)
        self.commits.append(list(writes))
        if not self.failures:
            self.recovered.set()
        return revision

    async def grant(self, ttl_s):
        self._fail()
        self.grants += 1
        return await self._store.grant(ttl_s)

    async def renew(self, lease):
        self._fail()
        self.renewals += 1
        await self._store.renew(lease)

    def _fail(self):
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def clock():
    return FakeClock()


@contextlib.asynccontextmanager
async def flaky_store(path, clock):
    async with open_local(path / "store.db", clock=clock) as store:
        yield Flaky(store)


async def kept(store):
    return values((await store.read(STATUS)).entries)


async def until(store, expected):
    """Follow the store until it holds this."""
    replica = Replica()
    async with closing(store.watch(STATUS)) as watch, asyncio.timeout(LIMIT_S):
        while replica.revision == 0 or replica.values != expected:
            replica.apply(await anext(watch))


class TestWithEveryStore:
    async def test_entries_are_there_while_it_is_open(self, home):
        async with home.open() as store:
            async with LeaseKeeper(store, TTL_S, MonotonicClock()) as keeper:
                await keeper.put({"status/a": b"1", "status/b": b"1"})
                assert await kept(store) == {"status/a": b"1", "status/b": b"1"}
                await keeper.put({"status/a": b"2"})
                await keeper.delete(["status/b"])
                assert await kept(store) == {"status/a": b"2"}
                assert (await store.get("status/a")).lease != 0
                assert keeper.problem == ""
            assert await kept(store) == {}

    @pytest.mark.slow
    async def test_it_renews_by_itself(self, home):
        async with home.open() as store, closing(store.watch(STATUS)) as watch:
            await following(watch)
            async with LeaseKeeper(store, 2.0, MonotonicClock()) as keeper:
                await keeper.put({"status/kept": b"1"})
                await following(watch)
                await store.commit([Put("status/left", b"1", await store.grant(2.0))])
                await following(watch)
                assert (await following(watch)).deletes == ("status/left",)
                assert await kept(store) == {"status/kept": b"1"}

    async def test_after_its_lease_was_revoked_everything_comes_back(self, home):
        async with home.open() as store, LeaseKeeper(store, TTL_S, MonotonicClock()) as keeper:
            await keeper.put({f"status/{n}": b"1" for n in range(5)})
            await store.revoke((await store.get("status/0")).lease)
            assert await kept(store) == {}
            await keeper.put({"status/5": b"1"})
            assert await kept(store) == {f"status/{n}": b"1" for n in range(6)}
            assert keeper.problem == ""

    async def test_what_somebody_else_deletes_comes_back(self, home):
        async with (
            home.open() as store,
            home.open() as other,
            LeaseKeeper(store, TTL_S, MonotonicClock(), [STATUS]) as keeper,
        ):
            await keeper.put({"status/a": b"1", "status/b": b"1"})
            await other.commit([Delete("status/a")])
            await until(store, {"status/a": b"1", "status/b": b"1"})
            first, second = await store.get("status/a"), await store.get("status/b")
            assert first.lease == second.lease != 0
            assert keeper.problem == ""

    async def test_what_it_deletes_itself_does_not_come_back(self, home):
        async with home.open() as store, LeaseKeeper(store, TTL_S, MonotonicClock(), [STATUS]) as keeper:
            await keeper.put({"status/a": b"1", "status/b": b"1"})
            await keeper.delete(["status/a"])
            await store.commit([Delete("status/b")])  # what comes after it
            await until(store, {"status/b": b"1"})

    @pytest.mark.slow
    async def test_what_somebody_else_writes_is_left_alone(self, home):
        async with home.open() as store, LeaseKeeper(store, TTL_S, MonotonicClock(), [STATUS]) as keeper:
            await keeper.put({"status/a": b"1", "status/b": b"1"})
            await store.commit([Put("status/a", b"another's"), Delete("status/b")])
            await until(store, {"status/a": b"another's", "status/b": b"1"})


class Telling(Flaky):
    """A store whose watch tells what it is given."""

    def __init__(self, store):
        super().__init__(store)
        self.news = asyncio.Queue()

    async def watch(self, span):
        while True:
            yield await self.news.get()
            self.news.task_done()


async def test_news_of_before_its_own_writing_is_no_deletion(tmp_path, clock, caplog):
    async with open_local(tmp_path / "store.db", clock=clock) as local:
        store = Telling(local)
        async with LeaseKeeper(store, TTL_S, clock, [STATUS]) as keeper:
            await keeper.put({"status/a": b"1"})
            written = (await local.get("status/a")).revision
            store.news.put_nowait(Change(written - 1, resync=True))
            store.news.put_nowait(Change(written - 1, deletes=("status/a",)))
            store.news.put_nowait(Change(written))
            await asyncio.sleep(0)
            async with asyncio.timeout(LIMIT_S):
                while store.news.qsize():
                    await asyncio.sleep(0.001)
            await keeper.put({"status/b": b"1"})
            assert [[write.key for write in commit] for commit in store.commits] == [
                ["status/a"],
                ["status/b"],
            ]
        assert not [record for record in caplog.records if "written again" in record.getMessage()]


@pytest.mark.slow
async def test_whoever_deletes_again_and_again_is_not_raced(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock, [STATUS]) as keeper:
        await keeper.put({"status/a": b"1"})
        await store._store.commit([Delete("status/a")])
        await until(store, {"status/a": b"1"})
        began_s = time.monotonic()
        for _ in range(40):
            await store._store.commit([Delete("status/a")])
            await asyncio.sleep(0.05)
        assert len(store.commits) <= 3 + (time.monotonic() - began_s)


async def test_it_renews_at_a_third_of_the_time(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        for n, (seconds, renewals) in enumerate([(0, 0), (9.9, 0), (0.2, 1), (9.9, 1), (0.1, 2), (25, 3)]):
            clock.advance(seconds)
            await keeper.put({"status/a": b"%d" % n})
            assert store.renewals == renewals
        assert store.grants == 1
        assert keeper.problem == ""


async def test_an_expired_lease_is_replaced(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        await keeper.put({"status/a": b"1", "status/b": b"1"})
        clock.advance(TTL_S + 1)
        assert await kept(store) == {}
        await keeper.delete(["status/b"])
        assert await kept(store) == {"status/a": b"1"}
        assert store.grants == 2


async def test_what_is_the_same_is_not_written_again(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        await keeper.put({"status/a": b"1"})
        await keeper.put({"status/a": b"1"})
        assert len(store.commits) == 1


async def test_of_changes_made_meanwhile_only_the_last_is_written(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        async with asyncio.TaskGroup() as tasks:
            for n in range(50):
                tasks.create_task(keeper.put({"status/a": b"%d" % n, f"status/b{n}": b""}))
            tasks.create_task(keeper.delete([f"status/b{n}" for n in range(1, 50)]))
        assert await kept(store) == {"status/a": b"49", "status/b0": b""}
        assert len(store.commits) <= 2


async def test_commits_stay_within_the_limits(tmp_path, clock):
    many = {f"status/many{n:03}": bytes(10) for n in range(3 * MAX_WRITES)}
    large = {f"status/large{n}": bytes(MAX_COMMIT_BYTES // 2) for n in range(3)}
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        await keeper.put(many | large)
        assert await kept(store) == many | large
        assert len(store.commits) == 6
        await keeper.delete(many)
        assert await kept(store) == large


async def test_an_entry_that_fits_into_no_commit_is_refused_at_once(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        with pytest.raises(CommitTooLarge, match="status/b"):
            await keeper.put({"status/a": b"1", "status/b": bytes(MAX_COMMIT_BYTES)})
        await keeper.put({"status/c": b"1"})
        assert await kept(store) == {"status/c": b"1"}


async def test_it_starts_while_the_store_is_away(tmp_path, clock):
    file, away = tmp_path / "store.db", tmp_path / "away.db"
    async with flaky_store(tmp_path, clock) as store:
        file.rename(away)
        async with LeaseKeeper(store, TTL_S, clock) as keeper:
            await keeper.put({"status/a": b"1"})
            assert "store.db" in keeper.problem
            await keeper.put({"status/b": b"1"})  # does not wait for what cannot be now
            away.rename(file)
            await until(store, {"status/a": b"1", "status/b": b"1"})
            await keeper.put({"status/c": b"1"})
            await until(store, {"status/a": b"1", "status/b": b"1", "status/c": b"1"})
        assert await kept(store) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "failure", [StoreAway("away"), StoreRefused("no"), CommitUnclear("who knows"), ValueError("a bug")]
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_no_failure_ends_it(tmp_path, clock, failure, after):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        await keeper.put({"status/a": b"1"})
        store.failures, store.after = [failure, failure], after
        await keeper.put({"status/a": b"2", "status/b": b"2"})
        assert str(failure) in keeper.problem
        store.recovered.clear()
        async with asyncio.timeout(LIMIT_S):
            await store.recovered.wait()
        assert keeper.problem == ""
        assert await kept(store) == {"status/a": b"2", "status/b": b"2"}
        assert store.grants == 1


async def test_a_store_that_loses_its_lease_again_and_again_is_not_pressed(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        revoke_at_once = store._store.revoke
        granting = store.grant

        async def grant_what_is_gone(ttl_s):
            lease = await granting(ttl_s)
            await revoke_at_once(lease)
            return lease

        store.grant = grant_what_is_gone
        await keeper.put({"status/a": b"1"})
        assert "lease" in keeper.problem
        assert store.grants == 2
        del store.grant
        await until(store, {"status/a": b"1"})


async def test_what_was_changed_while_it_was_written_is_written_again(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store, LeaseKeeper(store, TTL_S, clock) as keeper:
        committing, changes = store.commit, []

        async def change_meanwhile(writes, expect=()):
            store.commit = committing
            changes.append(asyncio.create_task(keeper.put({"status/a": b"2"})))
            await asyncio.sleep(0)
            return await committing(writes, expect)

        store.commit = change_meanwhile
        await keeper.put({"status/a": b"1"})
        await asyncio.gather(*changes)
        assert await kept(store) == {"status/a": b"2"}


async def test_closing_does_not_wait_for_a_store_that_is_away(tmp_path, clock):
    file = tmp_path / "store.db"
    async with flaky_store(tmp_path, clock) as store:
        async with LeaseKeeper(store, TTL_S, clock) as keeper:
            await keeper.put({"status/a": b"1"})
            file.rename(tmp_path / "away.db")
        Path(tmp_path / "away.db").rename(file)
        assert await kept(store) == {"status/a": b"1"}
        clock.advance(TTL_S)
        assert await kept(store) == {}


async def test_closing_leaves_no_task_and_nobody_waiting(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store:
        before = asyncio.all_tasks()
        async with LeaseKeeper(store, TTL_S, clock) as keeper:
            putting = asyncio.create_task(keeper.put({"status/a": b"1"}))
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            await putting
        assert asyncio.all_tasks() == before
        with pytest.raises(RuntimeError, match="not open"):
            await keeper.put({"status/a": b"1"})


async def test_an_error_inside_comes_out_as_it_is(tmp_path, clock):
    async with flaky_store(tmp_path, clock) as store:

        async def fail():
            async with LeaseKeeper(store, TTL_S, clock) as keeper:
                await keeper.put({"status/a": b"1"})
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fail()
        assert await kept(store) == {}
