"""What every store promises: the docstrings of `gateway.config.store.store`, as tests."""

import asyncio
import contextlib

import pytest
from store_home import LIMIT_S, Replica, closing, follow_to, following, values

from gateway.config.store.store import (
    MAX_COMMIT_BYTES,
    MAX_WRITES,
    CommitTooLarge,
    Conflict,
    Delete,
    Entry,
    Expect,
    LeaseGone,
    Put,
    Span,
)

MODELS = Span.folder("models")
HIGHEST_LEASE = 2**63 - 1


class TestCommitsAndReads:
    async def test_a_fresh_store_is_empty(self, home):
        async with home.open() as store:
            assert (await store.read(MODELS)).entries == ()
            assert (await store.read(MODELS, last=1)).entries == ()
            assert await store.get("models/a") is None

    async def test_an_entry_has_the_revision_of_the_commit_that_wrote_it_last(self, home):
        async with home.open() as store:
            first = await store.commit([Put("models/a", b"1"), Put("models/b", b"1")])
            second = await store.commit([Put("models/b", b"2")])
            snapshot = await store.read(MODELS)
            assert second > first > 0
            assert snapshot.revision >= second
            assert snapshot.entries == (Entry("models/a", b"1", first), Entry("models/b", b"2", second))
            assert await store.get("models/b") == Entry("models/b", b"2", second)

    async def test_writing_the_same_value_again_is_a_change(self, home):
        async with home.open() as store:
            first = await store.commit([Put("models/a", b"1")])
            second = await store.commit([Put("models/a", b"1")])
            assert second > first
            assert (await store.get("models/a")).revision == second

    async def test_what_is_deleted_is_gone(self, home):
        async with home.open() as store:
            await store.commit([Put("models/a", b"1"), Put("models/b", b"1")])
            await store.commit([Delete("models/a"), Put("models/c", b"1")])
            assert values((await store.read(MODELS)).entries) == {"models/b": b"1", "models/c": b"1"}
            assert await store.get("models/a") is None

    async def test_deleting_what_is_not_there_is_no_error(self, home):
        async with home.open() as store:
            before = await store.commit([Put("models/a", b"1")])
            assert await store.commit([Delete("models/absent")]) >= before
            assert values((await store.read(MODELS)).entries) == {"models/a": b"1"}

    async def test_a_commit_without_writes_only_compares(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/a", b"1")])
            assert await store.commit([], [Expect("models/a", revision)]) >= revision
            with pytest.raises(Conflict):
                await store.commit([], [Expect("models/a", revision + 1)])
            assert await store.get("models/a") == Entry("models/a", b"1", revision)

    async def test_values_are_any_bytes(self, home):
        everything = bytes(range(256)) * 3
        async with home.open() as store:
            await store.commit([Put("models/empty", b""), Put("models/every", everything)])
            assert (await store.get("models/empty")).value == b""
            assert (await store.get("models/every")).value == everything

    async def test_entries_come_in_the_order_of_their_keys_bytes(self, home):
        names = ["Z", "a", "a-b", "a.b", "a0", "aa", "z", "é", "\uffff", "😀"]  # as their UTF-8 sorts
        async with home.open() as store:
            await store.commit([Put(f"models/{name}", b"") for name in reversed(names)])
            entries = (await store.read(MODELS)).entries
        assert [entry.key for entry in entries] == [f"models/{name}" for name in names]

    async def test_a_span_holds_its_own_keys_only(self, home):
        keys = ["models", "models-x/a", "models.", "models/", "models/a", "models/a/b", "models/b", "models0"]
        async with home.open() as store:
            await store.commit([Put(key, b"") for key in keys])
            folder = (await store.read(MODELS)).entries
            one = (await store.read(Span.one("models/a"))).entries
            several = (await store.read(Span("models.", "models/b"))).entries
        assert [entry.key for entry in folder] == ["models/", "models/a", "models/a/b", "models/b"]
        assert [entry.key for entry in one] == ["models/a"]
        assert [entry.key for entry in several] == ["models.", "models/", "models/a", "models/a/b"]

    async def test_last_gives_the_highest_keys(self, home):
        async with home.open() as store:
            await store.commit([Put(f"history/a/{n:03}", b"") for n in range(20)])
            await store.commit([Put("history/b/001", b"")])
            for last, expected in ((1, range(19, 20)), (3, range(17, 20)), (99, range(20))):
                found = (await store.read(Span.folder("history/a"), last=last)).entries
                assert [entry.key for entry in found] == [f"history/a/{n:03}" for n in expected]

    async def test_another_store_does_not_see_it(self, home):
        async with home.open() as store, home.another().open() as other:
            await store.commit([Put("models/a", b"1")])
            assert await other.get("models/a") is None
            assert (await other.read(MODELS)).entries == ()

    async def test_whoever_opens_it_again_finds_it(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/a", b"1")])
        async with home.open() as store:
            assert await store.get("models/a") == Entry("models/a", b"1", revision)
            assert await store.commit([Put("models/a", b"2")]) > revision

    async def test_messages_can_name_it(self, home):
        async with home.open() as store:
            await store.get("models/a")
            assert store.where
            assert store.away == ""


class TestExpectations:
    async def test_a_commit_goes_through_when_all_is_as_expected(self, home):
        async with home.open() as store:
            first = await store.commit([Put("models/a", b"1")], [Expect("models/a", 0)])
            second = await store.commit(
                [Put("models/b", b"1")], [Expect("models/a", first), Expect("models/b", 0)]
            )
            assert await store.get("models/b") == Entry("models/b", b"1", second)
            await store.commit([Delete("models/b")], [Expect("models/b", second)])
            await store.commit([Put("models/b", b"2")], [Expect("models/b", 0)])
            assert (await store.get("models/b")).value == b"2"

    @pytest.mark.parametrize("revision", [0, 1, 2**62])
    async def test_an_entry_that_was_changed_is_a_conflict(self, home, revision):
        async with home.open() as store:
            await store.commit([Put("models/a", b"1")])
            written = await store.commit([Put("models/a", b"2")])
            with pytest.raises(Conflict, match="models/a") as caught:
                await store.commit([Put("models/a", b"3")], [Expect("models/a", revision)])
            assert caught.value.found == {"models/a": Entry("models/a", b"2", written)}
            assert (await store.get("models/a")).value == b"2"

    async def test_an_entry_that_was_deleted_is_a_conflict(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/a", b"1")])
            await store.commit([Delete("models/a")])
            with pytest.raises(Conflict) as caught:
                await store.commit([Put("models/a", b"2")], [Expect("models/a", revision)])
            assert caught.value.found == {"models/a": None}
            assert await store.get("models/a") is None

    async def test_a_conflict_names_the_keys_that_are_not_as_expected(self, home):
        async with home.open() as store:
            right = await store.commit([Put("models/right", b"1"), Put("models/new", b"1")])
            with pytest.raises(Conflict) as caught:
                await store.commit(
                    [Put("models/written", b"1")],
                    [Expect("models/right", right), Expect("models/gone", 1), Expect("models/new", 0)],
                )
            assert caught.value.found == {"models/gone": None, "models/new": Entry("models/new", b"1", right)}

    async def test_a_conflict_writes_nothing(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/a", b"1"), Put("models/b", b"1")])
            with pytest.raises(Conflict):
                await store.commit(
                    [Put("models/a", b"2"), Delete("models/b"), Put("models/c", b"2")],
                    [Expect("models/a", revision), Expect("policies/gateway", revision)],
                )
            assert values((await store.read(MODELS)).entries) == {"models/a": b"1", "models/b": b"1"}

    async def test_expectations_may_be_of_keys_that_are_not_written(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("policies/gateway", b"1")])
            await store.commit([Put("models/a", b"1")], [Expect("policies/gateway", revision)])
            assert (await store.get("policies/gateway")).revision == revision
            assert (await store.get("models/a")).value == b"1"

    @pytest.mark.slow
    async def test_of_concurrent_committers_nothing_is_lost(self, home):
        async with home.open() as one, home.open() as other:
            await one.commit([Put("models/counter", b"0")])

            async def increment(store):
                for _ in range(5):
                    while True:
                        entry = await store.get("models/counter")
                        value = b"%d" % (int(entry.value) + 1)
                        with contextlib.suppress(Conflict):
                            await store.commit(
                                [Put("models/counter", value)], [Expect("models/counter", entry.revision)]
                            )
                            break

            async with asyncio.TaskGroup() as tasks:
                for number in range(20):
                    tasks.create_task(increment((one, other)[number % 2]))
            assert (await one.get("models/counter")).value == b"100"


class TestLimits:
    async def test_the_largest_commit_goes_through(self, home):
        keys = [f"models/{n:03}" for n in range(MAX_WRITES)]
        room = MAX_COMMIT_BYTES - sum(map(len, keys))
        sizes = [room // MAX_WRITES] * MAX_WRITES
        sizes[0] += room - sum(sizes)
        writes = [Put(key, bytes(size)) for key, size in zip(keys, sizes, strict=True)]
        async with home.open() as store:
            await store.commit(writes, [Expect(key, 0) for key in keys])
            entries = (await store.read(MODELS)).entries
            assert sum(len(entry.key) + len(entry.value) for entry in entries) == MAX_COMMIT_BYTES

    @pytest.mark.parametrize(
        ("writes", "expect"),
        [
            ([Put(f"models/{n}", b"") for n in range(MAX_WRITES + 1)], []),
            ([Delete(f"models/{n}") for n in range(MAX_WRITES + 1)], []),
            ([Put("models/a", b"")], [Expect(f"models/{n}", 0) for n in range(MAX_WRITES + 1)]),
            ([Put("models/a", bytes(MAX_COMMIT_BYTES - len("models/a") + 1))], []),
            ([Put(f"models/{n}", bytes(MAX_COMMIT_BYTES // 3)) for n in range(3)], []),
        ],
        ids=["puts", "deletes", "expectations", "one value", "values"],
    )
    async def test_a_larger_one_writes_nothing(self, home, writes, expect):
        async with home.open() as store:
            with pytest.raises(CommitTooLarge, match="most"):
                await store.commit(writes, expect)
            assert (await store.read(MODELS)).entries == ()

    @pytest.mark.parametrize(
        "writes",
        [
            [Put("models/a", b"1"), Put("models/a", b"2")],
            [Put("models/a", b"1"), Delete("models/a")],
            [Delete("models/a"), Put("models/b", b""), Delete("models/a")],
        ],
    )
    async def test_a_key_may_not_be_written_twice(self, home, writes):
        async with home.open() as store:
            with pytest.raises(ValueError, match="twice"):
                await store.commit(writes)
            assert (await store.read(MODELS)).entries == ()

    @pytest.mark.slow
    async def test_thousands_of_entries_are_read_at_one_revision(self, home):
        keys = [f"models/{n:04}" for n in range(5000)]
        async with home.open() as store, home.open() as writer:
            for start in range(0, len(keys), 100):
                await store.commit([Put(key, key.encode() * 85) for key in keys[start : start + 100]])

            async def write_both_ends(count):
                for n in range(count):
                    await writer.commit([Put(keys[0], b"%d" % n), Put(keys[-1], b"%d" % n)])

            await write_both_ends(1)
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(write_both_ends(200))
                reads = 0
                while reads < 3 or not writing.done():
                    entries = (await store.read(MODELS)).entries
                    assert [entry.key for entry in entries] == keys
                    assert entries[0].value == entries[-1].value
                    assert entries[1].value == keys[1].encode() * 85
                    reads += 1

            async with closing(store.watch(MODELS)) as watch:
                change = await following(watch)
                assert change.resync
                assert [entry.key for entry in change.puts] == keys


async def lasting(before):
    """Return the tasks that are new and do not end by themselves: a library may need a turn for its own."""
    new = asyncio.all_tasks() - before
    return (await asyncio.wait(new, timeout=LIMIT_S))[1] if new else new


class TestWatches:
    async def test_it_begins_with_what_there_is(self, home):
        async with home.open() as store:
            async with closing(store.watch(MODELS)) as watch:
                change = await following(watch)
                assert (change.resync, change.puts, change.deletes) == (True, (), ())
            revision = await store.commit([Put("models/a", b"1"), Put("policies/gateway", b"1")])
            async with closing(store.watch(MODELS)) as watch:
                change = await following(watch)
                assert (change.resync, change.puts) == (True, (Entry("models/a", b"1", revision),))
                assert change.revision >= revision

    async def test_it_tells_puts_and_deletions(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            await following(watch)
            revision = await store.commit([Put("models/a", b"1")])
            change = await following(watch)
            assert (change.revision, change.resync) == (revision, False)
            assert (change.puts, change.deletes) == ((Entry("models/a", b"1", revision),), ())
            revision = await store.commit([Delete("models/a")])
            change = await following(watch)
            assert (change.revision, change.puts, change.deletes) == (revision, (), ("models/a",))

    async def test_a_commit_of_several_keys_is_one_change(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            await store.commit([Put("models/a", b"1")])
            replica = Replica()
            await follow_to(watch, replica, (await store.get("models/a")).revision)
            revision = await store.commit(
                [Delete("models/a"), *(Put(f"models/{n:03}", bytes(10_000)) for n in range(MAX_WRITES - 1))]
            )
            change = await following(watch)
            assert change.revision == revision
            assert [entry.key for entry in change.puts] == [f"models/{n:03}" for n in range(MAX_WRITES - 1)]
            assert change.deletes == ("models/a",)

    async def test_it_tells_nothing_of_other_spans(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            await following(watch)
            await store.commit([Put("models", b""), Put("models0", b""), Put("policies/gateway", b"")])
            revision = await store.commit([Put("models/a", b"1"), Put("policies/gateway", b"1")])
            change = await following(watch)
            assert (change.revision, change.deletes) == (revision, ())
            assert [entry.key for entry in change.puts] == ["models/a"]

    async def test_it_resumes_after_a_revision_with_deletions(self, home):
        async with home.open() as store:
            await store.commit([Put("models/kept", b"1"), Put("models/gone", b"1"), Put("models/new", b"1")])
            replica = Replica()
            async with closing(store.watch(MODELS)) as watch:
                replica.apply(await following(watch))
            await store.commit([Put("models/new", b"2")])
            await store.commit([Delete("models/gone")])
            last = await store.commit([Put("models/more", b"1")])
        async with home.open() as store, closing(store.watch(MODELS, after=replica.revision)) as watch:
            change = await following(watch)
            assert not change.resync
            replica.apply(change)
            await follow_to(watch, replica, last)
            assert "models/kept" not in {entry.key for entry in change.puts}, "a repetition"
        assert replica.values == {"models/kept": b"1", "models/new": b"2", "models/more": b"1"}

    async def test_resumed_where_it_ended_it_waits_for_the_next_commit(self, home):
        async with home.open() as store:
            before = await store.commit([Put("models/a", b"1")])
            async with closing(store.watch(MODELS, after=before)) as watch:
                waiting = asyncio.create_task(anext(watch))
                # Another watch gets through meanwhile: this one would have had something to say by now.
                async with closing(store.watch(MODELS)) as other:
                    await following(other)
                assert not waiting.done()
                revision = await store.commit([Put("models/b", b"1")])
                async with asyncio.timeout(LIMIT_S):
                    change = await waiting
                assert (change.revision, change.resync) == (revision, False)
                assert [entry.key for entry in change.puts] == ["models/b"]

    async def test_several_watches_see_the_same(self, home):
        async with home.open() as store, home.open() as other:
            watches = [each.watch(span) for each in (store, other) for span in (MODELS, Span("a", "z"))]
            async with contextlib.AsyncExitStack() as stack:
                for watch in watches:
                    await stack.enter_async_context(closing(watch))
                    await following(watch)
                for n in range(10):
                    revision = await store.commit([Put(f"models/{n}", b"1"), Delete(f"models/{n - 3}")])
                for watch in watches:
                    replica = Replica()
                    await follow_to(watch, replica, revision)
                    assert replica.values == {"models/7": b"1", "models/8": b"1", "models/9": b"1"}

    @pytest.mark.slow
    async def test_after_a_burst_it_ends_at_the_latest_state(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            for n in range(100):
                key = f"models/{n % 7}"
                revision = await store.commit([Delete(key) if n % 5 == 0 else Put(key, b"%d" % n)])
            revision = await store.commit([Put("models/end", b"")])
            await follow_to(watch, replica, revision)
            assert replica.values == values((await store.read(MODELS)).entries)

    @pytest.mark.slow
    async def test_it_sees_commits_made_while_it_begins(self, home):
        async with home.open() as store, home.open() as writer:

            async def write():
                for n in range(50):
                    await writer.commit([Put(f"models/{n:02}", b"1"), Delete(f"models/{n - 10:02}")])
                return await writer.commit([Put("models/end", b"")])

            writing = asyncio.create_task(write())
            replicas = []
            while not writing.done():
                replica, watch = Replica(), store.watch(MODELS)
                replica.apply(await following(watch))
                replicas.append((replica, watch))
                if len(replicas) > 20:
                    break
            revision = await writing
            expected = values((await store.read(MODELS)).entries)
            for replica, watch in replicas:
                async with closing(watch):
                    await follow_to(watch, replica, revision)
                assert replica.values == expected

    async def test_closing_it_ends_what_it_began(self, home):
        async with home.open() as store:
            async with closing(store.watch(MODELS)) as watch:  # what the store itself needs is there now
                await following(watch)
            before = asyncio.all_tasks()
            for after in (None, (await store.read(MODELS)).revision):
                watch = store.watch(MODELS, after=after)
                waiting = asyncio.create_task(anext(watch))
                await store.commit([Put("models/a", b"1")])
                async with asyncio.timeout(LIMIT_S):
                    await waiting
                await watch.aclose()
            assert await lasting(before) == set()

    async def test_whoever_waits_for_a_change_can_be_cancelled(self, home):
        async with home.open() as store:
            async with closing(store.watch(MODELS)) as watch:
                await following(watch)
            before = asyncio.all_tasks()
            watch = store.watch(MODELS)
            await following(watch)
            waiting = asyncio.create_task(anext(watch))
            await store.get("models/a")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await watch.aclose()
            assert await lasting(before) == set()

    async def test_what_was_forgotten_is_read_again(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/kept", b"1"), Put("models/gone", b"1")])
            await store.commit([Delete("models/gone")])
            last = await store.commit([Put("models/new", b"1")])
            await home.compact()
            async with closing(store.watch(MODELS, after=revision)) as watch:
                change = await following(watch)
                assert change.resync
                assert change.revision >= last
                assert values(change.puts) == {"models/kept": b"1", "models/new": b"1"}
                after = await store.commit([Delete("models/kept")])
                change = await following(watch)
                assert (change.revision, change.deletes) == (after, ("models/kept",))

    async def test_a_watch_that_is_up_to_date_outlives_a_compaction(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            replica.apply(await following(watch))
            await store.commit([Put("models/a", b"1")])
            await home.compact()
            last = await store.commit([Put("models/b", b"1")])
            await follow_to(watch, replica, last)
            assert replica.values == {"models/a": b"1", "models/b": b"1"}

    async def test_a_revision_that_the_store_has_not_reached_is_of_another_store(self, home):
        async with home.open() as store:
            revision = await store.commit([Put("models/a", b"1")])
            async with closing(store.watch(MODELS, after=revision + 1_000_000)) as watch:
                change = await following(watch)
                assert change.resync
                assert values(change.puts) == {"models/a": b"1"}
                assert change.revision < revision + 1_000_000


class TestLeases:
    @pytest.mark.slow
    async def test_what_is_under_a_lease_goes_with_it(self, home):
        async with home.open() as store, home.open() as other, closing(other.watch(MODELS)) as watch:
            await following(watch)
            lease = await store.grant(1.0)
            revision = await store.commit(
                [Put("models/a", b"1", lease), Put("models/b", b"1", lease), Put("models/c", b"1")]
            )
            assert await store.get("models/a") == Entry("models/a", b"1", revision, lease)
            change = await following(watch)
            assert {entry.key: entry.lease for entry in change.puts} == {
                "models/a": lease,
                "models/b": lease,
                "models/c": 0,
            }
            change = await following(watch)
            assert (change.puts, change.resync) == ((), False)
            assert sorted(change.deletes) == ["models/a", "models/b"]
            assert change.revision > revision
            assert values((await store.read(MODELS)).entries) == {"models/c": b"1"}
            with pytest.raises(LeaseGone):
                await store.renew(lease)

    @pytest.mark.slow
    async def test_nobody_who_granted_it_has_to_live(self, home):
        async with home.open() as store:
            await store.commit([Put("models/a", b"1", await store.grant(1.0))])
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            replica = Replica()
            async with asyncio.timeout(LIMIT_S):
                while replica.revision == 0 or replica.values:
                    replica.apply(await anext(watch))
            assert await store.get("models/a") is None

    @pytest.mark.slow
    async def test_a_renewed_lease_lives_on(self, home):
        async with home.open() as store, closing(store.watch(Span.one("models/left"))) as watch:
            await following(watch)
            renewed = await store.grant(2.0)
            await store.commit([Put("models/renewed", b"1", renewed)])
            await store.commit([Put("models/left", b"1", await store.grant(2.0))])
            await following(watch)
            expiry = asyncio.create_task(anext(watch))
            async with asyncio.timeout(LIMIT_S):
                while not expiry.done():
                    await asyncio.wait({expiry}, timeout=0.2)
                    await store.renew(renewed)
            assert (await expiry).deletes == ("models/left",)
            assert await store.remaining_s(renewed) >= 1.0
            assert (await store.get("models/renewed")).lease == renewed

    async def test_it_tells_how_long_it_would_live(self, home):
        async with home.open() as store:
            lease = await store.grant(60.0)
            assert 50.0 < await store.remaining_s(lease) <= 60.0
            await store.renew(lease)
            assert 50.0 < await store.remaining_s(lease) <= 60.0

    async def test_a_lease_lives_for_a_second_at_least(self, home):
        async with home.open() as store:
            lease = await store.grant(0.001)
            await store.commit([Put("models/a", b"1", lease)])
            assert (await store.get("models/a")).lease == lease

    async def test_revoking_deletes_what_is_under_it_in_one_commit(self, home):
        async with home.open() as store, closing(store.watch(MODELS)) as watch:
            lease, other = await store.grant(60.0), await store.grant(60.0)
            assert lease != other
            written = await store.commit(
                [Put("models/a", b"1", lease), Put("models/b", b"1", lease), Put("models/c", b"1", other)]
            )
            await follow_to(watch, Replica(), written)
            await store.revoke(lease)
            change = await following(watch)
            assert sorted(change.deletes) == ["models/a", "models/b"]
            assert values((await store.read(MODELS)).entries) == {"models/c": b"1"}
            await store.revoke(lease)
            await store.revoke(other)
            assert (await store.read(MODELS)).entries == ()

    @pytest.mark.parametrize("lease", [1, HIGHEST_LEASE])
    async def test_a_lease_that_never_was_is_gone(self, home, lease):
        async with home.open() as store:
            await self.assert_gone(store, lease)

    async def test_a_revoked_lease_is_gone(self, home):
        async with home.open() as store:
            lease = await store.grant(60.0)
            await store.revoke(lease)
            await self.assert_gone(store, lease)

    async def assert_gone(self, store, lease):
        with pytest.raises(LeaseGone):
            await store.renew(lease)
        with pytest.raises(LeaseGone):
            await store.remaining_s(lease)
        with pytest.raises(LeaseGone):
            await store.commit([Put("models/a", b"1"), Put("models/b", b"1", lease)])
        assert (await store.read(MODELS)).entries == ()
        await store.revoke(lease)

    async def test_an_entry_belongs_to_the_lease_that_it_was_put_under_last(self, home):
        async with home.open() as store:
            lease, other = await store.grant(60.0), await store.grant(60.0)
            await store.commit([Put(f"models/{key}", b"1", lease) for key in "abc"])
            await store.commit([Put("models/a", b"2"), Put("models/b", b"2", other)])
            await store.revoke(lease)
            assert values((await store.read(MODELS)).entries) == {"models/a": b"2", "models/b": b"2"}
            assert (await store.get("models/a")).lease == 0
            await store.revoke(other)
            assert values((await store.read(MODELS)).entries) == {"models/a": b"2"}

    async def test_deleting_an_entry_leaves_its_lease(self, home):
        async with home.open() as store:
            lease = await store.grant(60.0)
            await store.commit([Put("models/a", b"1", lease), Put("models/b", b"1", lease)])
            await store.commit([Delete("models/a")])
            await store.renew(lease)
            await store.commit([Put("models/a", b"2")])
            await store.revoke(lease)
            assert values((await store.read(MODELS)).entries) == {"models/a": b"2"}
