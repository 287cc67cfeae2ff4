"""A store as the source of desired state: what changes, what stays, and what is kept on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3

import pytest
from fake_store import FakeStore, Follower, NotingLastGood

from gateway.config.store.store import Change, Delete, Entry, Put, StoreRefused
from gateway.lifecycle.store_source import StoreSource

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
BASE = {"versions": {"1": {"source": "file:///srv/a.onnx", "digest": DIGEST}}}


def document(**more):
    return {**BASE, **more}


def override(**patch):
    return {"patch": patch, "for_s": 60, "by": "me", "change": "c", "at": "2026-01-01T00:00:00Z"}


def batch(size):
    return {"batching": {"max_batch_size": size}}


@pytest.fixture
async def store():
    return FakeStore()


@pytest.fixture
async def follow(store):
    """A source over the fake store, and its first snapshot."""
    follower = Follower(StoreSource(store, None))
    await follower.next()
    yield follower
    await follower.close()


@pytest.fixture
async def start(tmp_path):
    """Start sources that share one file on disk, as one gateway does again and again."""
    followers = []

    async def start(store, *, patience_s=10.0):
        last_good = NotingLastGood(tmp_path / "state" / "last-good.db")
        follower = Follower(StoreSource(store, last_good, patience_s=patience_s), last_good)
        followers.append(follower)
        return follower

    yield start
    for follower in followers:
        await follower.close()


def max_batch_size(desired, model="a"):
    return desired.models[model].document.batching.max_batch_size


# Documents come and go.


async def test_the_first_snapshot_has_all_that_there_is(store):
    store.put("models/a", document())
    store.put("models/b", {**document(), "labels": {"stable": "1"}})
    follower = Follower(StoreSource(store, None))
    desired = await follower.next()
    assert (desired.models.keys(), desired.changed, desired.revision) == ({"a", "b"}, {"a", "b"}, 2)
    assert [desired.models[name].revision for name in "ab"] == [1, 2]
    version = desired.models["a"].versions["1"]
    assert (version.source, version.digest, version.path) == ("file:///srv/a.onnx", DIGEST, "")
    await follower.close()


async def test_an_empty_store_is_a_snapshot_too(follow):
    assert (dict(follow.now.models), follow.now.revision, follow.now.changed) == ({}, 0, set())
    assert not follow.source.away


async def test_one_change_names_the_one_model_that_it_is_about(store, follow):
    for name in "abc":
        store.put(f"models/{name}", document())
        assert (await follow.next()).changed == {name}
    store.put("models/b", document(**batch(2)))
    desired = await follow.next()
    assert desired.changed == {"b"}
    assert [desired.models[name].revision for name in "abc"] == [1, 4, 3]
    assert desired.revision == 4


async def test_all_of_one_revision_is_one_snapshot(store, follow):
    value = json.dumps(document()).encode()
    store.commit(Put("models/a", value), Put("models/b", value))
    desired = await follow.next()
    assert (desired.models.keys(), desired.changed) == ({"a", "b"}, {"a", "b"})


async def test_a_deleted_model_is_gone_and_the_revision_counts_it(store, follow):
    store.put("models/a", document())
    await follow.next()
    store.commit(Delete("models/a"))
    desired = await follow.next()
    assert (dict(desired.models), desired.changed, desired.revision) == ({}, {"a"}, 2)


async def test_a_model_that_was_deleted_may_come_back_with_another_digest(store, follow):
    store.put("models/a", document())
    await follow.next()
    store.commit(Delete("models/a"))
    await follow.next()
    store.put("models/a", {"versions": {"1": {"source": "file:///x", "digest": OTHER_DIGEST}}})
    assert (await follow.next()).problems == {}


async def test_a_document_written_again_as_it_was_changes_only_its_revision(store, follow):
    store.put("models/a", document())
    await follow.next()
    store.put("models/a", document())
    desired = await follow.next()
    assert (desired.changed, desired.models["a"].revision) == ({"a"}, 2)


# Overrides.


async def test_overrides_fold_in_the_order_of_their_revisions(store, follow):
    store.put("models/a", document())
    await follow.next()
    store.put("overrides/a/z", override(**batch(2)))
    assert max_batch_size(await follow.next()) == 2
    store.put("overrides/a/a", override(**batch(3)))
    assert max_batch_size(await follow.next()) == 3
    store.put("overrides/a/z", override(**batch(4)))
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].revision) == (4, 4)


async def test_overrides_of_one_revision_fold_alike_on_every_gateway(store, follow):
    first = json.dumps(override(**batch(2))).encode()
    second = json.dumps(override(**batch(3))).encode()
    store.put("models/a", document())
    await follow.next()
    store.commit(Put("overrides/a/9", first))
    await follow.next()
    store.commit(Put("overrides/a/1", second), Put("overrides/a/9", first))
    here = max_batch_size(await follow.next())
    another = Follower(StoreSource(store, None))
    assert here == max_batch_size(await another.next()) == 2
    await another.close()


async def test_an_override_that_ends_reverts_its_change_and_counts_as_one(store, follow):
    store.put("models/a", document())
    await follow.next()
    store.put("overrides/a/1", override(**batch(2)))
    await follow.next()
    store.commit(Delete("overrides/a/1"))
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].revision, desired.revision) == (64, 3, 3)
    assert desired.changed == {"a"}


async def test_one_of_two_overrides_ends(store, follow):
    store.put("models/a", document())
    store.put("overrides/a/1", override(**batch(2)))
    store.put("overrides/a/2", override(retry="never"))
    for _ in range(3):
        desired = await follow.next()
    store.commit(Delete("overrides/a/1"))
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].document.retry) == (64, "never")


async def test_a_document_changes_under_an_override(store, follow):
    store.put("models/a", document())
    store.put("overrides/a/1", override(**batch(2)))
    store.put("models/a", document(retry="never"))
    for _ in range(3):
        desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].document.retry) == (2, "never")
    store.commit(Delete("overrides/a/1"))
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].document.retry) == (64, "never")


async def test_an_override_that_makes_the_document_invalid_leaves_the_one_before(store, follow):
    store.put("models/a", document(**batch(8)))
    await follow.next()
    store.put("overrides/a/1", override(batching={"max_batch_size": 0}))
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].revision) == (8, 1)
    assert "batching.max_batch_size" in desired.problems["a"]
    store.commit(Delete("overrides/a/1"))
    assert (await follow.next()).problems == {}


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b'{"patch": {"a": "\xff"}, "for_s": 1, "by": "", "change": "", "at": ""}',
        b"{",
        b"[]",
        b'{"patch": 3}',
        b'{"patch":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b',"for_s":1,"by":"","change":"","at":""}',
        b'{"patch":' + b'{"a":' * 960 + b"1" + b"}" * 960 + b',"for_s":1,"by":"","change":"","at":""}',
    ],
    ids=["not UTF-8", "not UTF-8 within", "not JSON", "no mapping", "no patch", "too deep", "deep"],
)
async def test_what_is_no_override_is_said_and_harms_nothing(store, follow, value):
    store.put("models/a", document())
    await follow.next()
    store.put("overrides/a/bad", value)
    desired = await follow.next()
    assert desired.models["a"].revision == 1
    assert desired.problems["a"]
    store.put("models/b", document())
    assert "b" in (await follow.next()).models


async def test_an_override_of_a_model_that_is_not_there_waits_for_it(store, follow):
    store.put("overrides/a/1", override(**batch(2)))
    desired = await follow.next()
    assert (dict(desired.models), dict(desired.problems)) == ({}, {})
    store.put("models/a", document())
    assert max_batch_size(await follow.next()) == 2


# What is wrong.

INVALID = {
    "not UTF-8": (b'{"retry": "\xff"}', "UTF-8"),
    "not JSON": (b"{", "line 1"),
    "empty": (b"", "line 1"),
    "no mapping": (b"[]", "expected a mapping"),
    "a key twice": (b'{"retry": "never", "retry": "auto"}', '"retry" is written twice'),
    "unknown field": (json.dumps(document(retri="auto")).encode(), 'did you mean "retry"'),
    "newer schema": (json.dumps(document(schema="crossgate/v2")).encode(), "crossgate/v2"),
    "other model": (json.dumps(document(model="b")).encode(), "model"),
    "no versions": (b"{}", "versions"),
    "changed digest": (
        json.dumps({"versions": {"1": {"source": "file:///srv/a.onnx", "digest": OTHER_DIGEST}}}).encode(),
        "versions.1.digest",
    ),
    "digest gone": (json.dumps({"versions": {"1": {"source": "file:///srv/a.onnx"}}}).encode(), DIGEST),
    "too deep": (b'{"traffic":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
}


@pytest.mark.parametrize(("value", "said"), INVALID.values(), ids=INVALID)
async def test_an_invalid_document_leaves_the_last_good_one_in_force(store, follow, value, said):
    store.put("models/a", document())
    good = (await follow.next()).models["a"]
    store.put("models/a", value)
    desired = await follow.next()
    assert desired.models["a"] is good
    assert said in desired.problems["a"]
    assert desired.changed == {"a"}
    store.put("models/a", document(**batch(2)))
    desired = await follow.next()
    assert (max_batch_size(desired), dict(desired.problems)) == (2, {})


@pytest.mark.parametrize(("value", "said"), INVALID.values(), ids=INVALID)
async def test_an_invalid_document_leaves_the_last_good_one_in_force_across_a_restart(start, value, said):
    store = FakeStore()
    store.put("models/a", document(**batch(8)))
    first = await start(store)
    await first.next()
    await first.end()
    store.put("models/a", value)  # while no gateway runs
    second = await start(store)
    desired = await second.next()
    assert (max_batch_size(desired), desired.models["a"].revision) == (8, 1)
    assert said in desired.problems["a"]
    await second.end()
    third = await start(store)
    assert max_batch_size(await third.next()) == 8


async def test_an_invalid_document_without_a_good_one_before_is_named(store, follow):
    store.put("models/a", b"{")
    desired = await follow.next()
    assert (dict(desired.models), desired.problems.keys(), desired.changed) == ({}, {"a"}, {"a"})
    store.commit(Delete("models/a"))
    assert (await follow.next()).problems == {}


async def test_thousands_of_problems_do_not_flood_what_is_said(store, follow):
    store.put("models/a", {f"key{n}": 1 for n in range(2000)})
    problem = (await follow.next()).problems["a"]
    assert len(problem) < 5000
    assert "problems)" in problem


async def test_keys_outside_the_grammar_are_logged_once_and_ignored(store, follow, caplog):
    strangers = ["models/a/b", "models/.a", "overrides/a", "policies/other", "nonsense/x", "overrides/a/b/c"]
    for key in strangers * 2:
        store.put(key, b"{}")
    store.put("rollouts/a", b"{}")  # of the grammar, and somebody else's
    store.put("models/a", document())
    while "a" not in follow.now.models:
        assert dict(follow.now.models) == {}
        await follow.next()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == len(strangers)
    assert all(any(repr(key) in error for error in errors) for key in strangers)


# The gateway's document.


async def test_the_gateways_document_is_taken_over_and_reverts(store, follow):
    store.put("policies/gateway", {"log_level": "debug"})
    desired = await follow.next()
    assert (desired.gateway.log_level, desired.changed, desired.revision) == ("debug", set(), 1)
    store.commit(Delete("policies/gateway"))
    desired = await follow.next()
    assert (desired.gateway.log_level, desired.revision) == (None, 2)


async def test_an_invalid_gateways_document_leaves_the_last_good_one(store, follow):
    store.put("policies/gateway", {"log_level": "debug"})
    await follow.next()
    store.put("policies/gateway", {"log_level": "loud"})
    desired = await follow.next()
    assert desired.gateway.log_level == "debug"
    assert "log_level" in desired.gateway_problem
    assert dict(desired.problems) == {}  # it is no model
    store.put("policies/gateway", {"log_level": "error"})
    desired = await follow.next()
    assert (desired.gateway.log_level, desired.gateway_problem) == ("error", "")


async def test_the_gateways_document_survives_a_restart_without_the_store(start):
    store = FakeStore()
    store.put("policies/gateway", {"log_level": "debug", "frozen": {"a*": "audit"}})
    first = await start(store)
    await first.next()
    store.put("policies/gateway", b"{")
    await first.next()
    store.put("models/a", document())
    await first.next()
    await first.end()
    second = await start(FakeStore(silent=True), patience_s=0.01)
    desired = await second.next()
    assert (desired.gateway.log_level, desired.gateway.frozen_because("ab")) == ("debug", "audit")


async def test_a_gateways_document_that_was_deleted_meanwhile_is_not_kept_from_disk(start):
    store = FakeStore()
    store.put("policies/gateway", {"log_level": "debug"})
    store.put("models/a", document())
    first = await start(store)
    await first.next()
    await first.end()
    empty = FakeStore(silent=True)
    second = await start(empty, patience_s=0.01)
    assert (await second.next()).gateway.log_level == "debug"
    empty.revision = 9
    empty.answer()
    desired = await second.next()
    assert (desired.gateway.log_level, dict(desired.models)) == (None, {})


# Resyncs.


async def test_a_resync_drops_what_is_there_no_longer(store, follow):
    for name in "abc":
        store.put(f"models/{name}", document())
        await follow.next()
    store.put("overrides/a/1", override(**batch(2)))
    await follow.next()
    del store.entries["models/b"], store.entries["overrides/a/1"]
    store.revision = 9  # somewhere between, in revisions that the watch never saw
    store.resync()
    desired = await follow.next()
    assert (desired.models.keys(), desired.changed) == ({"a", "c"}, {"a", "b"})
    assert (max_batch_size(desired), desired.models["a"].revision, desired.revision) == (64, 9, 9)


async def test_a_resync_without_news_changes_nothing(store, follow):
    store.put("models/a", document())
    store.put("overrides/a/1", override(**batch(2)))
    store.put("models/b", document())
    for _ in range(3):
        before = await follow.next()
    store.resync()
    desired = await follow.next()
    assert (desired.changed, desired.revision) == (set(), before.revision)
    assert all(desired.models[name] is before.models[name] for name in "ab")


async def test_a_resync_does_not_take_back_a_revision_that_was_seen(store, follow):
    store.put("models/a", document())
    store.put("models/b", document())
    store.commit(Delete("models/b"))
    for _ in range(3):
        await follow.next()
    store.resync()
    assert (await follow.next()).revision == 3


async def test_a_restored_store_is_believed_whatever_its_revisions(store, follow):
    for size in (2, 3, 4):
        store.put("models/a", document(**batch(size)))
        await follow.next()
    store.put("overrides/a/1", override(retry="never"))
    await follow.next()
    store.commit(Delete("overrides/a/1"))
    await follow.next()
    store.restore(2, {"models/a": json.dumps(document(**batch(9))).encode()})
    desired = await follow.next()
    assert (max_batch_size(desired), desired.models["a"].revision, desired.revision) == (9, 2, 2)
    assert desired.changed == {"a"}


async def test_a_restored_store_with_the_same_revisions_and_other_values_is_believed(store, follow):
    store.put("models/a", document(**batch(2)))
    store.put("overrides/a/1", override(retry="never"))
    for _ in range(2):
        await follow.next()
    entries = [
        Entry("models/a", json.dumps(document(**batch(3))).encode(), 1),
        Entry("overrides/a/1", json.dumps(override(required=True)).encode(), 2),
    ]
    store.say(Change(2, tuple(entries), resync=True))
    found = (await follow.next()).models["a"].document
    assert (found.batching.max_batch_size, found.retry, found.required) == (3, "auto", True)


# The store refuses.


async def test_a_store_that_refuses_at_the_start_ends_it_where_there_is_nothing_to_serve(start):
    follower = await start(RefusingStore())
    with pytest.raises(StoreRefused, match="permission denied"):
        await follower.next()


async def test_a_store_that_refuses_at_the_start_is_asked_again_where_the_disk_has_something(start):
    store = FakeStore()
    store.put("models/a", document())
    first = await start(store)
    await first.next()
    await first.end()
    second = await start(RefusingStore(), patience_s=0.05)
    desired = await second.next()
    assert desired.models.keys() == {"a"}
    assert second.source.from_disk
    assert "permission denied" in second.source.away


async def test_a_store_that_refuses_later_changes_nothing_and_is_asked_again(store, follow):
    store.put("models/a", document())
    await follow.next()
    coming = asyncio.ensure_future(follow.next())
    store.say(StoreRefused("permission denied"))
    await until(lambda: store.watches == 2)
    desired = await coming  # everything again, after the one failure
    assert (desired.models.keys(), desired.changed) == ({"a"}, set())
    assert not follow.source.away


class RefusingStore(FakeStore):
    async def watch(self, span, *, after=None):
        raise StoreRefused("permission denied")
        yield


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


# The disk.


async def test_a_start_without_the_store_serves_what_is_on_disk_and_then_catches_up(start):
    store = FakeStore()
    for name in ("kept", "changed", "deleted"):
        store.put(f"models/{name}", document())
    store.put("overrides/kept/1", override(**batch(2)))
    first = await start(store)
    await first.next()
    await first.end()

    away = FakeStore(silent=True)
    away.away = "no endpoint answers"
    second = await start(away, patience_s=0.01)
    desired = await second.next()
    assert desired.models.keys() == {"kept", "changed", "deleted"}
    assert desired.changed == desired.models.keys()
    assert (max_batch_size(desired, "kept"), desired.models["kept"].revision) == (2, 4)
    assert desired.revision == 4
    assert second.source.from_disk
    assert second.source.away == "no endpoint answers"

    away.entries, away.revision = dict(store.entries), 7
    del away.entries["models/deleted"]
    away.entries["models/changed"] = Entry("models/changed", json.dumps(document(**batch(5))).encode(), 6)
    away.answer()
    desired = await second.next()
    assert desired.models.keys() == {"kept", "changed"}
    assert desired.changed == {"changed", "deleted"}
    assert desired.revision == 7
    assert not second.source.from_disk
    assert second.source.away == ""
    await second.end()

    third = await start(FakeStore(silent=True), patience_s=0.01)
    desired = await third.next()
    assert desired.models.keys() == {"kept", "changed"}
    assert max_batch_size(desired, "changed") == 5


async def test_it_says_that_it_serves_from_disk_even_before_the_store_is_known_to_be_away(start):
    store = FakeStore()
    store.put("models/a", document())
    first = await start(store)
    await first.next()
    await first.end()
    second = await start(FakeStore(silent=True), patience_s=0.01)  # it neither answers nor fails
    await second.next()
    assert second.source.away


async def test_without_store_and_disk_it_waits(start):
    store = FakeStore(silent=True)
    follower = await start(store, patience_s=0.01)
    coming = asyncio.ensure_future(follower.next())
    await until(lambda: store.watches)
    store.put("models/a", document())
    store.answer()
    assert (await coming).models.keys() == {"a"}


async def test_a_store_that_answers_in_time_is_believed_and_not_the_disk(start):
    store = FakeStore()
    store.put("models/a", document())
    first = await start(store)
    await first.next()
    await first.end()
    store.commit(Delete("models/a"))
    second = await start(store)
    assert dict((await second.next()).models) == {}
    assert not second.source.from_disk


async def test_what_is_deleted_is_deleted_on_disk_too(start):
    store = FakeStore()
    store.put("models/a", document())
    first = await start(store)
    await first.next()
    store.put("models/b", document())
    await first.next()
    store.commit(Delete("models/a"))
    await first.next()
    await first.end()
    second = await start(FakeStore(silent=True), patience_s=0.01)
    assert (await second.next()).models.keys() == {"b"}


async def test_a_disk_that_cannot_be_written_is_said_and_all_goes_on(tmp_path, store, caplog):
    (tmp_path / "state").write_bytes(b"a file where the folder should be")
    last_good = NotingLastGood(tmp_path / "state" / "last-good.db")
    follower = Follower(StoreSource(store, last_good), last_good)
    await follower.next()
    store.put("models/a", document())
    assert "a" in (await follower.next()).models
    store.put("models/b", document())
    await follower.next()
    (tmp_path / "state").unlink()
    store.put("models/c", document())
    desired = await follower.next()
    assert desired.models.keys() == {"a", "b", "c"}
    assert str(tmp_path / "state") in caplog.text
    await follower.end()
    # what could not be kept before is kept now
    again = Follower(StoreSource(FakeStore(silent=True), NotingLastGood(last_good._path), patience_s=0.01))
    assert (await again.next()).models.keys() == {"a", "b", "c"}
    await again.close()


async def test_the_disk_problem_is_told_where_the_operator_looks(tmp_path, store):
    (tmp_path / "state").write_bytes(b"")
    last_good = NotingLastGood(tmp_path / "state" / "last-good.db")
    follower = Follower(StoreSource(store, last_good), last_good)
    await follower.next()
    coming = asyncio.ensure_future(follower.next())
    await until(lambda: str(tmp_path / "state") in follower.source.away)
    store.put("models/a", document())
    await coming
    await follower.close()


async def test_a_corrupt_disk_stops_nothing(tmp_path, store):
    path = tmp_path / "last-good.db"
    path.write_bytes(b"this is no database" * 1000)
    store.put("models/a", document())
    last_good = NotingLastGood(path)
    follower = Follower(StoreSource(store, last_good), last_good)
    assert (await follower.next()).models.keys() == {"a"}
    coming = asyncio.ensure_future(follower.next())
    await until(lambda: str(path) in follower.source.away)
    store.put("models/b", document())
    assert (await coming).models.keys() == {"a", "b"}
    await follower.close()


async def test_what_another_release_left_on_disk_and_is_unknown_here_is_passed_over(tmp_path, start, caplog):
    store = FakeStore()
    store.put("models/a", document())
    store.put("models/b", document())
    store.put("policies/gateway", {"log_level": "debug"})
    first = await start(store)
    await first.next()
    await first.end()
    with sqlite3.connect(tmp_path / "state" / "last-good.db") as connection:
        newer = b'{"model": "a", "tomorrows_field": 1}'
        connection.execute("UPDATE documents SET value = ? WHERE key = 'models/a'", (newer,))
        connection.execute("UPDATE documents SET value = ? WHERE key = 'policies/gateway'", (newer,))
    connection.close()
    second = await start(FakeStore(silent=True), patience_s=0.01)
    desired = await second.next()
    assert (desired.models.keys(), desired.gateway.log_level) == ({"b"}, None)
    assert "tomorrows_field" in caplog.text
