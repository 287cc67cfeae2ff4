"""When a change counts as applied, and when waiting for it ends."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from crossgate.cli.waiting import SETTLE_S, Awaited, Waiting, judge, wait_until_applied
from gateway.config.keys import GATEWAYS, STATUS, gateway_key, status_key
from gateway.config.status import ModelReport, Presence, VersionReport
from gateway.config.store.local import open_local
from gateway.config.store.store import Change, Delete, Entry, Put

READY, LOADING = VersionReport("READY"), VersionReport("LOADING", "fetching")
BROKEN = VersionReport("UNAVAILABLE", "digits-2.zip is not there")
DIGITS = Awaited(10, "digits", frozenset({"2"}))


def presence(name="one", *, observed=10, draining=False):
    return Presence(name, "node", "1", "127.0.0.1:1", "unix:/a", 1, "now", observed, draining)


def report(revision, applied, waits=(), problem="", **versions):
    named = {version.removeprefix("v"): state for version, state in versions.items()}
    return ModelReport("digits", revision, applied, waits, problem, named)


@pytest.mark.parametrize(
    ("awaited", "observed", "said", "state", "reason"),
    [
        (DIGITS, 9, None, "waiting", "has not seen"),
        (DIGITS, 10, None, "applied", ""),
        (DIGITS, 9, report(9, 9, v1=READY), "waiting", "has not seen"),
        (
            DIGITS,
            9,
            report(10, 9, ("version 2: loading",), v1=READY),
            "waiting",
            "waits for version 2: loading",
        ),
        (DIGITS, 9, report(10, 10, v1=READY, v2=READY), "applied", ""),
        (DIGITS, 10, report(9, 9, v1=READY), "applied", ""),
        (DIGITS, 10, report(12, 12, v2=READY), "applied", ""),
        (
            DIGITS,
            10,
            report(10, 9, ("version 2",), v2=BROKEN),
            "failing",
            "version 2 is unavailable: digits-2.zip",
        ),
        (DIGITS, 10, report(10, 10, v1=BROKEN, v2=READY), "applied", ""),
        (DIGITS, 10, report(10, 10, v1=READY, v2=LOADING), "waiting", "loads version 2: fetching"),
        (DIGITS, 10, report(10, 9, problem="labels: expected"), "failing", "labels: expected"),
        (Awaited(10, "digits", deleted=True), 10, report(0, 0, v1=READY), "waiting", "unloads 1"),
        (Awaited(10, "digits", deleted=True), 10, None, "applied", ""),
        (Awaited(10), 9, None, "waiting", "has not seen"),
        (Awaited(10), 11, None, "applied", ""),
    ],
)
def test_progress_is_judged_by_what_a_gateway_says(awaited, observed, said, state, reason):
    progress = judge(awaited, presence(observed=observed), said)
    assert progress.state == state
    assert reason in progress.reason


def put(key, value, revision=1):
    return Entry(key, msgspec.json.encode(value), revision)


def resync(*entries):
    return Change(1, entries, resync=True)


@pytest.fixture
def waiting():
    return Waiting([DIGITS], deadline_s=60)


def test_nothing_is_decided_before_both_spans_were_read(waiting):
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence())))
    assert waiting.outcome(0) is None
    assert waiting.outcome(60).state == "late"
    waiting.take(STATUS, resync())
    assert waiting.outcome(1).state == "applied"
    assert waiting.outcome(1).gateways == ("one",)


def test_nobody_is_waited_for_where_no_gateway_lives_or_all_drain(waiting):
    waiting.take(STATUS, resync())
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence(observed=0, draining=True))))
    assert waiting.outcome(0).state == "nobody"


def test_a_gateway_that_goes_no_longer_counts_and_the_last_one_ends_it(waiting):
    waiting.take(STATUS, resync())
    both = (put(gateway_key("one"), presence()), put(gateway_key("two"), presence("two", observed=9)))
    waiting.take(GATEWAYS, resync(*both))
    assert waiting.outcome(0) is None
    assert waiting.reasons() == ("two: digits: has not seen the change yet",)
    waiting.take(GATEWAYS, Change(2, deletes=(gateway_key("two"),)))
    assert waiting.outcome(0).state == "applied"
    waiting.take(GATEWAYS, Change(3, deletes=(gateway_key("one"),)))
    assert waiting.outcome(0).state == "gone"


def test_a_gateway_that_comes_is_waited_for_too(waiting):
    waiting.take(STATUS, resync())
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence(observed=9))))
    assert waiting.outcome(0) is None
    late = put(gateway_key("two"), presence("two", observed=9))
    waiting.take(GATEWAYS, Change(2, (put(gateway_key("one"), presence()), late)))
    assert waiting.outcome(0) is None
    assert [reason.partition(":")[0] for reason in waiting.reasons()] == ["two"]


def test_a_failure_counts_after_it_has_stayed_for_a_while(waiting):
    broken = put(status_key("one", "digits"), report(10, 9, v2=BROKEN))
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence())))
    waiting.take(STATUS, resync(broken))
    assert waiting.outcome(0) is None
    assert waiting.wake_s() == SETTLE_S
    loading = put(status_key("one", "digits"), report(10, 9, v2=LOADING))
    waiting.take(STATUS, Change(2, (loading,)))
    assert waiting.outcome(1.9) is None
    waiting.take(STATUS, Change(3, (broken,)))
    assert waiting.outcome(2.1) is None
    failed = waiting.outcome(2.1 + SETTLE_S)
    assert failed.state == "failed"
    assert failed.reasons == ("one: digits: version 2 is unavailable: digits-2.zip is not there",)


def test_the_limit_says_what_is_missing(waiting):
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence(observed=9))))
    waiting.take(STATUS, resync())
    assert waiting.outcome(59.9) is None
    assert waiting.outcome(60).state == "late"
    assert waiting.outcome(60).reasons == ("one: digits: has not seen the change yet",)


def test_a_resync_forgets_what_is_gone(waiting):
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence(observed=9))))
    waiting.take(STATUS, resync())
    waiting.take(GATEWAYS, resync(put(gateway_key("two"), presence("two"))))
    assert waiting.outcome(0).gateways == ("two",)


def test_what_another_release_wrote_in_another_way_is_passed_over(waiting):
    waiting.take(GATEWAYS, resync(put(gateway_key("one"), presence()), Entry("gateways/x", b"{", 1)))
    waiting.take(STATUS, resync(Entry("status/one/digits", b"\xff", 1)))
    assert waiting.outcome(0).gateways == ("one",)


async def test_waiting_follows_a_store(tmp_path):
    told = []
    async with open_local(tmp_path / "store.db") as store:
        await store.commit([Put(gateway_key("one"), msgspec.json.encode(presence(observed=9)))])

        async def follow():
            return await wait_until_applied(store, [DIGITS], 10, told.append)

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(follow())
            while not told:
                await asyncio.sleep(0)
            value = msgspec.json.encode(report(10, 10, v2=READY))
            await store.commit([Put(status_key("one", "digits"), value)])
            await store.commit([Put(gateway_key("one"), msgspec.json.encode(presence()))])
    assert task.result().state == "applied"
    assert told == ["one: digits: has not seen the change yet"]


class LateStatus:
    """A store whose watch of statuses tells nothing but that there are none."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def watch(self, span):
        if span == STATUS:
            yield resync()
            await asyncio.Event().wait()
        async for change in self._store.watch(span):
            yield change


async def test_a_watch_of_statuses_that_is_behind_does_not_make_a_change_applied(tmp_path):
    told = []
    async with open_local(tmp_path / "store.db") as store:
        value = msgspec.json.encode(report(10, 9, ("version 2: fetching",), v2=LOADING))
        await store.commit([Put(status_key("one", "digits"), value)])
        await store.commit([Put(gateway_key("one"), msgspec.json.encode(presence()))])
        outcome = await wait_until_applied(LateStatus(store), [DIGITS], 0.2, told.append)
    assert outcome.state == "late"
    assert told == ["one: digits: waits for version 2: fetching"]


async def test_waiting_ends_when_the_gateways_lease_does(tmp_path):
    async with open_local(tmp_path / "store.db") as store:
        await store.commit([Put(gateway_key("one"), msgspec.json.encode(presence(observed=9)))])
        told = asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waits = wait_until_applied(store, [DIGITS], 10, lambda reason: told.set())
            task = group.create_task(waits)
            await told.wait()
            await store.commit([Delete(gateway_key("one"))])
    assert task.result().state == "gone"
