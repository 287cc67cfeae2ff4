"""The parts of the etcd store that decide without an etcd."""

import random

import grpc
import pytest
from aetcd import rpc

from gateway.config.store.etcd.assembly import Assembly
from gateway.config.store.etcd.failure import Cause, failure_of
from gateway.config.store.etcd.keyspace import KeySpace
from gateway.config.store.etcd.news import News
from gateway.config.store.etcd.timing import Backoff, Timing
from gateway.config.store.etcd.transaction import found_in, request_of
from gateway.config.store.store import Change, Delete, Entry, Expect, Put

KEYS = KeySpace("/crossgate/")
Code = grpc.StatusCode


def put(key, revision, value=b"", lease=0):
    kv = rpc.KeyValue(key=KEYS.encode(key), value=value, mod_revision=revision, lease=lease)
    return rpc.Event(type=rpc.Event.PUT, kv=kv)


def deletion(key, revision):
    return rpc.Event(type=rpc.Event.DELETE, kv=rpc.KeyValue(key=KEYS.encode(key), mod_revision=revision))


def reply(*events, fragment=False):
    return rpc.WatchResponse(events=events, fragment=fragment)


class TestAssembly:
    def test_fragments_become_one_change_when_the_last_is_there(self):
        assembly = Assembly(KEYS)
        assert assembly.add(reply(put("a", 5), put("b", 5), fragment=True)) is None
        assert assembly.add(reply(put("c", 5), fragment=True)) is None
        assert assembly.revision == 0
        change = assembly.add(reply(put("d", 5)))
        assert (change.revision, [entry.key for entry in change.puts]) == (5, ["a", "b", "c", "d"])
        assert assembly.revision == 5

    def test_an_interrupted_message_is_told_when_it_comes_again(self):
        assembly = Assembly(KEYS)
        assembly.add(reply(put("a", 5), fragment=True))
        assembly.interrupt()
        assert assembly.revision == 0
        change = assembly.add(reply(put("a", 5), put("b", 5)))
        assert change.puts == (Entry("a", b"", 5), Entry("b", b"", 5))

    def test_of_several_revisions_the_last_state_is_told(self):
        events = [put("a", 5), put("b", 5), deletion("a", 6), deletion("b", 6), put("b", 7, b"new", lease=9)]
        change = Assembly(KEYS).add(reply(*events))
        assert change == Change(7, (Entry("b", b"new", 7, 9),), ("a",))

    def test_what_was_told_is_not_told_again(self):
        assembly = Assembly(KEYS)
        assembly.add(reply(put("a", 5)))
        assert assembly.add(reply(put("a", 5))) is None
        assert assembly.add(reply(put("a", 5), put("b", 6))).puts == (Entry("b", b"", 6),)

    def test_after_an_advance_older_events_are_repetitions(self):
        assembly = Assembly(KEYS)
        assembly.advance(8)
        assembly.advance(3)
        assert assembly.revision == 8
        assert assembly.add(reply(put("a", 8))) is None
        assert assembly.add(reply(put("a", 9))).revision == 9

    async def test_it_knows_what_was_told(self):
        assembly = Assembly(KEYS)
        found = [put("a", 3).kv, put("b", 4).kv]
        everything = Change(7, (Entry("a", b"", 3), Entry("b", b"", 4)), resync=True)
        assert await assembly.reset(7, found) == everything
        assert await assembly.equals(found)
        assembly.add(reply(deletion("a", 8), put("c", 8)))
        assert await assembly.equals([put("b", 4).kv, put("c", 8).kv])
        assert not await assembly.equals(found)
        assert not await assembly.equals([put("b", 5).kv, put("c", 8).kv])


class TestNews:
    def test_changes_that_nobody_took_become_one(self):
        news = News()
        news.add(Change(1, (Entry("a", b"1", 1), Entry("b", b"1", 1))))
        news.add(Change(2, (Entry("a", b"2", 2),), ("b", "c")))
        news.add(Change(3, (Entry("c", b"3", 3),), ("a",)))
        assert news.take_nowait() == Change(3, (Entry("c", b"3", 3),), ("a", "b"))
        assert news.take_nowait() is None

    def test_a_resync_replaces_what_was_before_it_and_takes_in_what_comes_after(self):
        news = News()
        news.add(Change(1, (Entry("a", b"1", 1),), ("b",)))
        news.add(Change(5, (Entry("c", b"1", 4), Entry("d", b"1", 4)), resync=True))
        news.add(Change(6, (Entry("e", b"1", 6),), ("c",)))
        assert news.take_nowait() == Change(6, (Entry("d", b"1", 4), Entry("e", b"1", 6)), resync=True)
        assert news.take_nowait() is None

    def test_an_empty_resync_is_news(self):
        news = News()
        news.add(Change(5, resync=True))
        assert news.take_nowait() == Change(5, resync=True)


@pytest.mark.parametrize(
    ("code", "details", "cause"),
    [
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", Cause.TOKEN),
        (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Cause.TOKEN),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", Cause.TOKEN),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            Cause.CREDENTIALS,
        ),
        (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", Cause.NO_AUTH),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", Cause.DENIED),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Cause.COMPACTED),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", Cause.FUTURE),
        (
            Code.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (9 vs. 8)",
            Cause.REPLY_TOO_LARGE,
        ),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)", Cause.TOO_LARGE),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", Cause.TOO_LARGE),
        (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", Cause.TOO_LARGE),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", Cause.NO_LEASE),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Cause.NO_SPACE),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Cause.UNSENT),
        (Code.UNAVAILABLE, "etcdserver: no leader", Cause.UNSENT),
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: x", Cause.UNSENT),
        (Code.UNIMPLEMENTED, "unknown service etcdserverpb.KV", Cause.UNSENT),
        (Code.UNAVAILABLE, "etcdserver: leader changed", Cause.UNCLEAR),
        (Code.UNAVAILABLE, "etcdserver: request timed out", Cause.UNCLEAR),
        (Code.UNAVAILABLE, "Socket closed", Cause.UNCLEAR),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Cause.UNCLEAR),
        (Code.INTERNAL, None, Cause.UNCLEAR),
        (Code.INVALID_ARGUMENT, "etcdserver: key is not provided", Cause.OTHER),
    ],
)
def test_what_an_error_of_etcd_means(code, details, cause):
    assert failure_of(code, details).cause is cause


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to "
            "remote host: connect: Connection refused (111)",
            "Failed to connect to remote host: connect: Connection refused (111)",
        ),
        ("one\nline", "one\\nline"),
        ("", "UNAVAILABLE"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_an_error_is_shown_on_one_short_line(details, text):
    assert failure_of(Code.UNAVAILABLE, details).text == text


def test_waits_are_a_random_part_of_a_doubling_time():
    timing = Timing(first_wait_s=1.0, longest_wait_s=8.0)

    class Most(random.Random):
        def uniform(self, a, b):
            assert a == 0.0
            return b

    backoff = Backoff(timing, Most())
    assert [backoff.wait_s() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    backoff.forgive()
    assert backoff.wait_s() == 1.0


def test_a_conflict_is_what_is_not_as_expected():
    expect = [Expect("models/a", 3), Expect("models/b", 0), Expect("models/c", 7), Expect("models/d", 0)]
    request = request_of(KEYS, [Put("models/a", b"1", 9), Delete("models/b")], expect)
    assert [(compare.key, compare.mod_revision) for compare in request.compare] == [
        (b"/crossgate/models/" + key, each.revision)
        for key, each in zip((b"a", b"b", b"c", b"d"), expect, strict=True)
    ]
    assert request.success[0].request_put.lease == 9
    found = [[put("models/a", 3).kv], [put("models/b", 4, b"x").kv], [], []]
    responses = [rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=kvs)) for kvs in found]
    conflict = found_in(KEYS, rpc.TxnResponse(responses=responses), expect)
    assert conflict == {"models/b": Entry("models/b", b"x", 4), "models/c": None}


@pytest.mark.parametrize("key", ["models/a", "models/é", "models/\udcff"])
def test_a_key_comes_back_as_it_was(key):
    assert KEYS.decode(KEYS.encode(key)) == key
