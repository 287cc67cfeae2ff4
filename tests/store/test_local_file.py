"""What happens to the file of a running store: deleted, replaced, restored, locked, full."""

import asyncio
import contextlib
import sqlite3

import pytest
from local_home import MODELS, back_up, held, until_away
from store_home import LIMIT_S, Replica, closing, follow_to, following, values

from gateway.config.store.local import open_local
from gateway.config.store.store import CommitUnclear, Delete, Put, StoreAway, StoreRefused


async def test_a_file_that_is_deleted_is_away_and_unloads_nothing(file, tmp_path):
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put("models/a", b"1")])
        replica = Replica()
        await follow_to(watch, replica, 1)
        file.unlink()
        away, waiting = await until_away(store, watch)
        assert f"{file} is not there" in away
        for call in (store.get("models/a"), store.commit([Put("models/b", b"1")]), store.grant(5.0)):
            with pytest.raises(StoreAway, match="not there"):
                await call
        async with open_local(file) as new:
            await new.commit([Put("models/new", b"1")])
            async with asyncio.timeout(LIMIT_S):
                change = await waiting
                while not change.puts:  # it was found before the commit
                    assert change.resync
                    change = await anext(watch)
        assert values(change.puts) == {"models/new": b"1"}
        assert store.away == ""
        assert await held(store) == {"models/new": b"1"}


async def test_a_backup_that_takes_its_place_is_read_again(file, tmp_path):
    async with (
        open_local(file) as store,
        open_local(file) as other,
        closing(store.watch(MODELS)) as watch,
    ):
        await store.commit([Put(f"models/{n}", b"old") for n in range(50)])
        backup = back_up(file, tmp_path / "backup.db")
        for n in range(50):
            await other.commit([Put(f"models/{n}", b"new"), Put(f"models/more{n}", bytes(5000))])
        replica = Replica()
        await follow_to(watch, replica, 51)
        backup.replace(file)
        change = await following(watch)
        assert (change.resync, change.revision) == (True, 1)
        assert values(change.puts) == {f"models/{n}": b"old" for n in range(50)}
        assert await held(other) == values(change.puts)
        revision = await other.commit([Put("models/0", b"newest")])
        assert (await following(watch)).revision == revision == 2
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_file_that_was_moved_away_has_all_that_was_committed(file, tmp_path):
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put("models/a", b"1")])
        await follow_to(watch, Replica(), 1)
        file.rename(tmp_path / "moved.db")
        _, waiting = await until_away(store, watch)
        async with open_local(tmp_path / "moved.db") as moved:
            assert await held(moved) == {"models/a": b"1"}
            await moved.commit([Put("models/b", b"1")])
        (tmp_path / "moved.db").rename(file)
        async with asyncio.timeout(LIMIT_S):
            change = await waiting
        assert change.resync
        assert values(change.puts) == {"models/a": b"1", "models/b": b"1"}
        assert store.away == ""


async def test_a_watch_may_begin_while_the_file_is_away(file, tmp_path):
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put("models/a", b"1")])
        file.rename(tmp_path / "moved.db")
        _, waiting = await until_away(store, watch)
        (tmp_path / "moved.db").rename(file)
        async with asyncio.timeout(LIMIT_S):
            change = await waiting
        assert (change.resync, values(change.puts)) == (True, {"models/a": b"1"})


@pytest.mark.parametrize("commits", [0, 5, 20])
async def test_a_backup_restored_into_the_file_is_read_again(file, tmp_path, commits):
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put("models/a", b"old")])
        backup = back_up(file, tmp_path / "backup.db")
        for n in range(10):
            await store.commit([Put("models/a", b"new"), Put(f"models/{n}", b"new")])
        await follow_to(watch, Replica(), 11)
        back_up(backup, file)
        change = await following(watch)
        assert (change.resync, values(change.puts)) == (True, {"models/a": b"old"})
        # What was seen before the restore is of another history, even where this one gets as far.
        for n in range(commits):
            await store.commit([Put(f"models/later{n}", b"")])
        async with closing(store.watch(MODELS, after=9)) as resumed:
            change = await following(resumed)
            assert change.resync
            assert values(change.puts) == await held(store)


async def test_another_store_copied_into_the_file_is_read_again(file, tmp_path):
    async with open_local(tmp_path / "other.db") as other:
        for n in range(9):
            await other.commit([Put(f"models/other{n}", b"")])
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put("models/a", b"1")])
        await follow_to(watch, Replica(), 1)
        back_up(tmp_path / "other.db", file)
        change = await following(watch)
        assert change.resync
        assert sorted(values(change.puts)) == [f"models/other{n}" for n in range(9)]


async def test_a_restore_that_is_not_done_yet_unloads_nothing(file, tmp_path):
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put(f"models/{n}", bytes(5000)) for n in range(20)])
        await follow_to(watch, Replica(), 1)
        whole = back_up(file, tmp_path / "backup.db").read_bytes()
        for part in (b"", whole[:100], whole[:9000]):
            (tmp_path / "part").write_bytes(part)
            (tmp_path / "part").replace(file)
            with pytest.raises(StoreAway, match=r"empty|damaged"):
                await store.read(MODELS)
        _, waiting = await until_away(store, watch)
        (tmp_path / "backup.db").replace(file)
        async with asyncio.timeout(LIMIT_S):
            change = await waiting
        assert change.resync
        assert len(change.puts) == 20


async def test_a_file_of_another_application_in_its_place_ends_the_watch(file, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs.db")) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
    async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
        await following(watch)
        (tmp_path / "theirs.db").replace(file)
        with pytest.raises(StoreRefused, match="another application"):
            await following(watch)
        with pytest.raises(StoreRefused, match="another application"):
            await store.get("models/a")


@pytest.mark.slow
async def test_while_somebody_keeps_it_locked_it_can_be_read(file):
    async with open_local(file) as store:
        await store.commit([Put("models/a", b"1")])
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            committing = asyncio.create_task(store.commit([Put("models/a", b"2")]))
            with pytest.raises(StoreAway, match="locked"):
                await committing
            assert await held(store) == {"models/a": b"1"}
        await store.commit([Put("models/a", b"3")])
        assert store.away == ""


async def test_without_space_nothing_is_written_and_it_can_be_read(file):
    async with open_local(file) as store:
        await store.commit([Put("models/a", b"1")])
        connection = store._file._connection
        (pages,) = await store._call(lambda: connection.execute("PRAGMA page_count").fetchone())
        await store._call(lambda: connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
        with pytest.raises(StoreAway, match="no space"):
            await store.commit([Put("models/a", b"2"), Put("models/b", bytes(1_000_000))])
        assert await held(store) == {"models/a": b"1"}
        await store.commit([Put("models/a", b"3")])
        assert await held(store) == {"models/a": b"3"}


async def test_a_commit_into_a_file_that_was_replaced_meanwhile_is_unclear(file, tmp_path):
    async with open_local(file) as store:
        await store.commit([Put("models/a", b"1")])
        observe = store._file._observe

        def replace_then_observe(connection):
            file.rename(tmp_path / "moved.db")
            observe(connection)

        store._file._observe = replace_then_observe
        with pytest.raises(CommitUnclear, match="replaced"):
            await store.commit([Put("models/a", b"2")])


async def test_deletions_are_kept_within_bounds(file):
    async with open_local(file, kept_deletions=20) as store:
        for n in range(100):
            await store.commit([Put(f"models/{n}", b"1")])
            last = await store.commit([Delete(f"models/{n}")])
        with contextlib.closing(sqlite3.connect(file)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM deletions").fetchone()
        assert 10 <= count <= 20
        async with closing(store.watch(MODELS, after=last - 10)) as watch:
            change = await following(watch)
            assert (change.resync, len(change.deletes)) == (False, 5)
        async with closing(store.watch(MODELS, after=last - 60)) as watch:
            assert (await following(watch)).resync


async def test_a_watch_that_falls_behind_what_is_kept_begins_again(file):
    async with open_local(file, kept_deletions=20) as store, closing(store.watch(MODELS)) as watch:
        await store.commit([Put(f"models/{n}", b"1") for n in range(100)])
        assert len((await following(watch)).puts) == 100
        for n in range(99):
            await store.commit([Delete(f"models/{n}")])
        change = await following(watch)
        assert (change.resync, values(change.puts)) == (True, {"models/99": b"1"})
