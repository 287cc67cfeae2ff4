from __future__ import annotations

from itertools import groupby

from gateway.telemetry.accounts import Accounts
from gateway.telemetry.collection import Collection
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.series import QUEUE_DEPTH, Sample


def points(collection):
    return {(part.series.name, point.labels) for part in collection.slices() for point in part.points}


def test_slices_of_a_series_follow_each_other_and_are_small():
    accounts = Accounts()
    for i in range(500):
        accounts.open(f"m{i}", "1")
    accounts.read_at_scrape(QUEUE_DEPTH, lambda: [Sample((f"m{i}",), i) for i in range(500)])
    parts = list(Collection(accounts).slices())
    names = [name for name, _ in groupby(part.series.name for part in parts)]
    assert len(names) == len(set(names))
    assert max(len(part.points) for part in parts) <= 250
    assert sum(len(part.points) for part in parts if part.series is QUEUE_DEPTH) == 500


def test_points_of_an_account_began_when_it_was_opened():
    accounts = Accounts()
    account = accounts.open("m", "1")
    account.opened_ns = 5
    accounts.unknown.opened_ns = 3
    part = next(iter(Collection(accounts).slices()))
    assert {(p.labels[0], since) for p, since in zip(part.points, part.since_ns, strict=True)} == {
        ("", 3),
        ("m", 5),
    }


def test_a_version_that_is_opened_between_slices_waits_for_the_next_time():
    accounts = Accounts()
    slices = Collection(accounts).slices()
    next(slices)
    accounts.open("late", "1").record_failure(Outcome.BUG, 1)
    assert "late" not in {label for part in slices for point in part.points for label in point.labels}


def test_names_from_callers_make_no_series():
    accounts = Accounts()
    accounts.open("m", "1").record_batch([1], [1], [1], 1, 1, 1, "full", "cpu", 1)
    collection = Collection(accounts, triton_names=True)
    accounts.find("m", "2")  # the account for versions that do not exist
    before = points(collection)
    for i in range(1000):
        for model, version in (
            ("m", f"{i + 2}"),
            (f"made-up-{i}", "1"),
            (f"made-up-{i}", ""),
            ("m", f"l{i}"),
        ):
            account = accounts.find(model, version)
            account.record_failure(Outcome.NOT_FOUND, 1, rejected=True)
            account.exemplify(1, i + 1, 1)
    assert points(collection) == before


def test_series_of_a_version_go_with_it():
    accounts = Accounts()
    before = points(Collection(accounts))
    accounts.open("m", "1").record_batch([1], [1], [1], 1, 1, 1, "full", "cpu", 1)
    accounts.find("m", "77")
    assert points(Collection(accounts)) > before
    accounts.close("m", "1")
    assert points(Collection(accounts)) == before


def test_a_version_has_a_bounded_number_of_series():
    accounts = Accounts()
    empty = len(points(Collection(accounts)))
    account = accounts.open("m", "1")
    for rows in range(1, 65):
        for reason in ("full", "idle", "delay"):
            account.record_batch([1] * rows, [1] * rows, [1] * rows, 1, 1, 1, reason, "cpu", 1)
    per_version = len(points(Collection(accounts))) - empty
    assert per_version == len(Outcome) + 5 + 2 + 3  # of the version; of its device; of close reasons
