"""Which files become a store, and what is said about the others."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from local_home import MODELS, held
from store_home import closing, following

from gateway.config.store.local import open_local
from gateway.config.store.store import Put, StoreAway, StoreRefused


async def test_only_the_owner_may_read_what_it_creates(file):
    before = os.umask(0)
    try:
        async with open_local(file) as store:
            await store.commit([Put("models/a", b"1")])
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert found == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_an_empty_file_becomes_a_store(file):
    file.touch()
    async with open_local(file) as store:
        assert await store.commit([Put("models/a", b"1")]) == 1


async def test_what_was_committed_is_in_one_file_once_it_is_closed(file):
    async with open_local(file) as store:
        await store.commit([Put("models/a", b"1")])
    assert [path.name for path in file.parent.iterdir()] == ["store.db"]


async def test_a_relative_path_stays_what_it_was(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    opening = open_local(Path(file.name))
    monkeypatch.chdir("/")
    async with opening as store:
        assert store.where == str(file)
    assert file.exists()


async def test_several_processes_may_create_it_at_once(file):
    async with asyncio.TaskGroup() as tasks:

        async def open_it(number):
            async with open_local(file) as store:
                await store.commit([Put(f"models/{number}", b"1")])

        for number in range(8):
            tasks.create_task(open_it(number))
    async with open_local(file) as store:
        assert len(await held(store)) == 8


async def test_it_leaves_no_thread_and_no_descriptor(file):
    async def used():
        async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
            await following(watch)
        return len(os.listdir("/proc/self/fd")), threading.enumerate()

    first = await used()
    for _ in range(5):
        assert await used() == first


async def refusal(file):
    with pytest.raises(StoreRefused) as caught:
        async with open_local(file):
            pass
    return str(caught.value)


async def test_a_folder_that_is_missing_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "absent", tmp_path / "file"):
        assert f"{folder} is no folder" in await refusal(folder / "store.db")


async def test_a_folder_is_no_store(tmp_path):
    assert f"{tmp_path} is no file" in await refusal(tmp_path)


async def test_a_text_file_is_no_store(file):
    file.write_text("models: {}\n" * 200)
    assert "no database" in await refusal(file)
    assert file.read_text() == "models: {}\n" * 200


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (x)", "PRAGMA application_id = 77"])
async def test_a_database_of_another_application_is_left_alone(file, statement):
    with contextlib.closing(sqlite3.connect(file)) as theirs:
        theirs.execute(statement)
    before = file.read_bytes()
    assert "another application" in await refusal(file)
    assert file.read_bytes() == before


async def test_a_newer_schema_is_named(file):
    async with open_local(file):
        pass
    with contextlib.closing(sqlite3.connect(file)) as newer:
        newer.execute("PRAGMA user_version = 7")
    assert "version 7" in await refusal(file)


@pytest.mark.parametrize("size", [50, 5000])
async def test_a_file_that_was_cut_is_damaged(file, size):
    async with open_local(file) as store:
        await store.commit([Put(f"models/{n}", bytes(5000)) for n in range(20)])
    os.truncate(file, size)
    assert "damaged" in await refusal(file)


async def test_a_path_may_have_any_name(tmp_path):
    folder = tmp_path / "a b?mode=ro#%20é\udcff"
    folder.mkdir()
    async with open_local(folder / "store&.db") as store:
        await store.commit([Put("models/a", b"1")])
    assert [path.name for path in folder.iterdir()] == ["store&.db"]


async def test_a_link_is_the_store_that_it_leads_to(file, tmp_path):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.db"
    link.symlink_to(file)
    async with open_local(file) as store, open_local(link) as linked:
        await store.commit([Put("models/a", b"1")])
        assert await held(linked) == {"models/a": b"1"}
        await linked.commit([Put("models/a", b"2")])
        assert await held(store) == {"models/a": b"2"}
        assert os.listdir(link.parent) == ["link.db"]


async def test_a_damaged_page_is_told_when_it_is_read(file):
    async with open_local(file) as store:
        await store.commit([Put(f"models/{n}", bytes(3000)) for n in range(50)])
    whole = file.read_bytes()
    file.write_bytes(whole[: 4096 * 2] + b"\xa5" * (len(whole) - 4096 * 2))
    with pytest.raises((StoreAway, StoreRefused), match=r"damaged|restore"):
        async with open_local(file) as store:
            await store.read(MODELS)


async def test_without_permission_it_is_refused(file):
    async with open_local(file):
        pass
    file.chmod(0o400)
    assert "may not be read and written" in as_nobody(file, lambda: asyncio.run(refusal(file)))
    file.chmod(0o666)
    file.parent.chmod(0o555)
    told = as_nobody(file, lambda: asyncio.run(refusal(file)))
    file.parent.chmod(0o755)
    assert f"folder {file.parent}" in told
    file.parent.chmod(0o600)
    told = as_nobody(file.parent, lambda: asyncio.run(refusal(file)))
    file.parent.chmod(0o755)
    assert f"{file} cannot be opened: Permission denied" in told


@pytest.mark.slow
async def test_a_file_that_somebody_keeps_locked_is_away(file):
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreAway, match="locked"):
            async with open_local(file):
                pass


def as_nobody(file, function):
    """Return what a function returns in a process of a user without rights."""
    if os.geteuid() != 0:
        return function()
    for folder in file.parents:
        if folder.stat().st_mode & 0o055 == 0 and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            os.write(writing, function().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told
