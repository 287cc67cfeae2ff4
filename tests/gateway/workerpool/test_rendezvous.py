from __future__ import annotations

import asyncio
import os

import pytest

from gateway.process import Process
from gateway.workerpool.rendezvous import FolderUnsafe, Rendezvous, private_folder, workers_of


async def test_the_lock_is_held_by_one_at_a_time(tmp_path):
    order = []
    first_in, leave = asyncio.Event(), asyncio.Event()

    async def first():
        async with Rendezvous(tmp_path, "k").held():
            first_in.set()
            await leave.wait()
            order.append("first")

    async def second():
        await first_in.wait()
        asyncio.get_running_loop().call_soon(leave.set)
        async with Rendezvous(tmp_path, "k").held():
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_different_keys_do_not_wait_for_each_other(tmp_path):
    async with Rendezvous(tmp_path, "a").held(), Rendezvous(tmp_path, "b").held():
        assert sorted(os.listdir(tmp_path)) == ["a.lock", "b.lock"]


async def test_a_worker_that_is_noted_is_found_by_others(tmp_path):
    process = Process(os.getpid())
    async with (meeting := Rendezvous(tmp_path, "k")).held():
        assert meeting.process() is None
        meeting.note(process)
    async with (other := Rendezvous(tmp_path, "k")).held():
        found = other.process()
    assert found is not None
    assert found.pid == os.getpid()
    (listed,) = workers_of(tmp_path)
    for each in (process, found, listed):
        each.close()


async def test_a_note_replaces_a_longer_one(tmp_path):
    (tmp_path / "k.lock").write_text("1234567890 12345678901234567890")
    process = Process(os.getpid())
    async with (meeting := Rendezvous(tmp_path, "k")).held():
        meeting.note(process)
        note = (tmp_path / "k.lock").read_text()
    process.close()
    assert note == process.note


async def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with Rendezvous(tmp_path / "gone", "k").held():
            pass


def test_a_folder_is_made_for_its_user_alone(tmp_path):
    folder = private_folder(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(FolderUnsafe, match="open is not this user's alone"):
        private_folder(folder)
