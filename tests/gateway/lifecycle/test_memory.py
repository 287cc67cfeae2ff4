"""Who goes when a slot has no room: tables of residents, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lifecycle.memory import Resident, Room, Stay, make_room

FIXED, BUSY, IDLE = Stay.FIXED, Stay.BUSY, Stay.IDLE
FITS = Room(fits=True)


def resident(key, size, used=0, stay=IDLE):
    return Resident(key, size, used, stay)


@pytest.mark.parametrize(
    ("needed", "budget", "residents", "room"),
    [
        (5, None, [resident("a", 1 << 40)], FITS),
        (10, 10, [], FITS),
        (5, 10, [resident("a", 5)], FITS),
        (0, 10, [resident("a", 12)], Room(fits=False, evict=("a",))),  # it grew while it was loaded
        (6, 10, [resident("a", 5)], Room(fits=False, evict=("a",))),
        (6, 10, [resident("a", 5, stay=BUSY)], Room(fits=False)),
        # the least recently used one goes, and only that
        (3, 10, [resident("a", 4, 9), resident("b", 4, 1)], Room(fits=False, evict=("b",))),
        # as many as it takes, oldest first
        (8, 10, [resident(k, 3, u) for k, u in (("a", 3), ("b", 1), ("c", 2))],
         Room(fits=False, evict=("b", "c", "a"))),
        # who is busy stays, and so does what is always loaded
        (3, 10, [resident("a", 4, 1, BUSY), resident("b", 4, 9)], Room(fits=False, evict=("b",))),
        (3, 10, [resident("a", 4, 1, FIXED), resident("b", 4, 9)], Room(fits=False, evict=("b",))),
        # nobody goes for nothing: with the idle one gone it would not fit either
        (8, 10, [resident("a", 5, stay=BUSY), resident("b", 5)], Room(fits=False)),
    ],
)  # fmt: skip
def test_who_goes(needed, budget, residents, room):
    assert make_room(needed, budget, residents) == room


def test_what_never_fits_says_how_much_there_is():
    mib = 1 << 20
    room = make_room(11 * mib, 10 * mib, [])
    assert (room.fits, room.evict) == (False, ())
    assert room.reason == "it needs 11.0 MiB; the slot's budget is 10.0 MiB"
    room = make_room(6 * mib, 10 * mib, [resident("a", 5 * mib, stay=FIXED), resident("b", 1)])
    assert "of which 5.0 MiB are held by models that are always loaded" in room.reason


residents = st.lists(
    st.builds(
        lambda size, used, stay: (size, used, stay),
        st.integers(0, 20), st.integers(0, 5), st.sampled_from(list(Stay)),
    ),
    max_size=8,
).map(lambda found: [resident(str(n), *each) for n, each in enumerate(found)])  # fmt: skip


@given(st.integers(0, 25), st.integers(1, 40), residents)
def test_only_idle_ones_go_and_then_it_fits(needed, budget, there):
    room = make_room(needed, budget, there)
    by_key = {each.key: each for each in there}
    assert all(by_key[key].stay is IDLE for key in room.evict)
    left = sum(each.size_bytes for each in there if each.key not in room.evict)
    assert room.fits == (sum(each.size_bytes for each in there) + needed <= budget)
    if room.evict:
        going = sum(each.size_bytes for each in there if each.stay is Stay.GOING)
        assert left - going + needed <= budget
        last = by_key[room.evict[-1]]
        assert left + last.size_bytes + needed > budget, "the last one need not have gone"
        stayed = [each.used_ns for each in there if each.stay is IDLE and each.key not in room.evict]
        assert all(last.used_ns <= used for used in stayed)


@given(st.integers(0, 25), st.integers(1, 40), residents)
def test_it_never_fits_only_if_what_always_stays_leaves_no_room(needed, budget, there):
    fixed = sum(each.size_bytes for each in there if each.stay is FIXED)
    assert bool(make_room(needed, budget, there).reason) == (
        fixed + needed > budget and sum(each.size_bytes for each in there) + needed > budget
    )
