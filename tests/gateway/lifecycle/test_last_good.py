"""The last good state on disk: kept for one store, shared by processes, and harmless when it is broken."""

from __future__ import annotations

import threading

import pytest

from gateway.config.keys import CONFIGURATION
from gateway.lifecycle.last_good import LastGood, LastGoodUnusable, Saved

A1, A2 = Saved("models/a", 1, b"one"), Saved("models/a", 2, b"two")
B1 = Saved("models/b", 1, b"b")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "crossgate" / "last-good.db"


@pytest.fixture
def last_good(path):
    return LastGood(path, "etcd://one/crossgate")


def loaded(last_good):
    return {saved.key: saved for saved in last_good.load()}


def test_nothing_was_saved_at_first(last_good):
    assert last_good.load() == []


def test_what_was_saved_is_there_for_the_next_process(last_good, path):
    last_good.save([A1, B1])
    assert loaded(LastGood(path, "etcd://one/crossgate")) == {"models/a": A1, "models/b": B1}


def test_it_can_be_read_by_its_owner_only(last_good, path):
    last_good.save([A1])
    assert path.parent.stat().st_mode & 0o077 == 0


def test_the_higher_revision_stays(last_good):
    last_good.save([A2])
    last_good.save([A1])
    assert loaded(last_good) == {"models/a": A2}


def test_a_deletion_counts_by_its_revision_too(last_good):
    last_good.save([A2, B1])
    last_good.save([Saved("models/a", 1, None), Saved("models/b", 1, None), Saved("models/c", 9, None)])
    assert loaded(last_good) == {"models/a": A2}


def test_only_replaces_everything_whatever_its_revision(last_good):
    last_good.save([A2, B1])
    last_good.save([A1], only=CONFIGURATION)
    assert loaded(last_good) == {"models/a": A1}
    last_good.save([], only=CONFIGURATION)
    assert last_good.load() == []


def test_only_leaves_other_kinds_of_document_alone(last_good):
    access = Saved("access/team", 3, b"{}")
    last_good.save([A2, access, Saved("policies/gateway", 1, b"{}")])
    last_good.save([B1], only=CONFIGURATION)
    assert loaded(last_good) == {"models/b": B1, "access/team": access}


def test_the_state_of_another_store_is_not_taken_for_this_ones(last_good, path):
    last_good.save([A2])
    other = LastGood(path, "etcd://two/crossgate")
    assert other.load() == []
    other.save([A1])
    assert loaded(other) == {"models/a": A1}
    assert last_good.load() == []


def test_it_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    broken = LastGood(tmp_path / "file" / "last-good.db", "s")
    for call in (broken.load, lambda: broken.save([A1])):
        with pytest.raises(LastGoodUnusable, match=str(tmp_path / "file")):
            call()


def test_it_says_that_it_is_damaged(last_good, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all, " * 500)
    for call in (last_good.load, lambda: last_good.save([A1])):
        with pytest.raises(LastGoodUnusable, match=r"last-good\.db"):
            call()


def test_a_save_that_fails_leaves_what_was_there(last_good):
    last_good.save([A1])
    with pytest.raises(LastGoodUnusable):
        last_good.save([A2, Saved("models/b", 1, object())], only=CONFIGURATION)
    assert loaded(last_good) == {"models/a": A1}


def test_processes_that_share_it_lose_nothing(path):
    def save(first):
        mine = LastGood(path, "s")
        for n in range(first, first + 10):
            mine.save([Saved(f"models/{n}", n, b"v"), Saved("models/shared", n, str(n).encode())])

    threads = [threading.Thread(target=save, args=(first,)) for first in (1, 11, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = loaded(LastGood(path, "s"))
    assert found.keys() == {f"models/{n}" for n in range(1, 31)} | {"models/shared"}
    assert found["models/shared"].value == b"30"
