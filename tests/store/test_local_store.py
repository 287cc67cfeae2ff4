"""A store in a file that several processes use, and one that ends or hangs."""

import asyncio
import contextlib
import sys
import threading
from pathlib import Path

import committing
import pytest
from local_home import MODELS, held
from store_home import LIMIT_S, Replica, closing, follow_to, following, values

from gateway.config.store import local_thread
from gateway.config.store.local import open_local
from gateway.config.store.store import CommitUnclear, Put, StoreAway


async def test_a_store_that_was_closed_says_so(file):
    async with open_local(file) as store:
        watch = store.watch(MODELS)
        await following(watch)
        waiting = asyncio.create_task(anext(watch))
        await store.get("models/a")
    with pytest.raises(RuntimeError, match="closed"):
        await store.get("models/a")
    with pytest.raises(RuntimeError, match="closed"):
        await waiting


async def test_a_commit_that_hangs_is_unclear_and_what_waits_behind_it_is_not_done(file, monkeypatch):
    monkeypatch.setattr(local_thread, "CALL_S", 0.05)
    entered, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    async with open_local(file) as store:
        commit = store._file.commit

        def hang(writes, expect):
            loop.call_soon_threadsafe(entered.set)
            released.wait(LIMIT_S)
            return commit(writes, expect)

        store._file.commit = hang
        hanging = asyncio.create_task(store.commit([Put("models/a", b"1")]))
        await entered.wait()
        store._file.commit = commit
        with pytest.raises(StoreAway, match="has not answered") as caught:
            await store.commit([Put("models/b", b"1")])
        assert not isinstance(caught.value, CommitUnclear)
        with pytest.raises(CommitUnclear, match="has not answered"):
            await hanging
        assert "has not answered" in store.away
        released.set()
        monkeypatch.setattr(local_thread, "CALL_S", LIMIT_S)
        assert await held(store) == {"models/a": b"1"}
        assert store.away == ""


@contextlib.asynccontextmanager
async def process(*arguments):
    script = Path(__file__).parent / "committing.py"
    child = await asyncio.create_subprocess_exec(
        sys.executable, script, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.slow
class TestProcesses:
    async def test_of_processes_that_commit_at_once_nothing_is_lost(self, file):
        async with open_local(file) as store, contextlib.AsyncExitStack() as stack:
            await store.commit([Put(committing.COUNTER, b"0")])
            watch = await stack.enter_async_context(closing(store.watch(MODELS)))
            children = [await stack.enter_async_context(process("increments", file, 50)) for _ in range(4)]
            await committing.increment(store, 50)
            assert [await child.wait() for child in children] == [0] * 4
            entry = await store.get(committing.COUNTER)
            assert entry.value == b"250"
            replica = Replica()
            await follow_to(watch, replica, entry.revision)
            assert replica.values == {committing.COUNTER: b"250"}

    async def test_a_process_that_is_killed_leaves_whole_commits_only(self, file):
        async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            answered = -1
            for kill_after in (1, 7, 20, 33):
                async with process("whole", file, 100_000) as child:
                    for _ in range(kill_after):
                        answered = int(await child.stdout.readline())
                    child.kill()
                    rest = (await child.stdout.read()).split()
                answered = max([answered, *map(int, rest[:-1])])  # the last line may be cut
                snapshot = await store.read(MODELS)
                found = set(values(snapshot.entries).values())
                assert len(snapshot.entries) == len(committing.KEYS)
                assert len(found) == 1, "a commit was applied in part"
                assert int(found.pop()) >= answered
                await follow_to(watch, replica, snapshot.revision)
                assert replica.values == values(snapshot.entries)
                await store.commit([Put("policies/gateway", b"it still commits")])

    async def test_a_watch_sees_whole_commits_of_another_process(self, file):
        async with open_local(file) as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            async with process("whole", file, 100) as child:
                async with asyncio.timeout(LIMIT_S):
                    while replica.revision < 100:
                        replica.apply(await anext(watch))
                        assert len(replica.values) == len(committing.KEYS)
                        assert len(set(replica.values.values())) == 1
                await child.stdout.read()
                assert await child.wait() == 0
