"""What is remembered of loads."""

from __future__ import annotations

from gateway.lifecycle.sizes import DOUBTED_NS, KnownSizes


def test_the_most_that_a_load_took_counts():
    sizes = KnownSizes()
    for size in (3, 9, 1):
        sizes.learn("k", "cpu", size, 0)
    assert (sizes.of("k", "cpu"), sizes.of("other", "cpu")) == (9, 0)


def test_a_slot_that_is_not_known_is_as_the_largest_other():
    sizes = KnownSizes()
    sizes.learn("k", "cpu", 3, 0)
    sizes.learn("k", "cuda:0", 7, 0)
    assert (sizes.of("k", "cpu"), sizes.of("k", "n/cpu")) == (3, 7)


def test_only_what_was_learned_long_ago_is_doubted():
    sizes = KnownSizes()
    sizes.learn("k", "cpu", 3, 5)
    assert not sizes.doubt("k", 5 + DOUBTED_NS - 1)
    assert sizes.doubt("k", 5 + DOUBTED_NS)
    assert not sizes.doubt("k", 5 + DOUBTED_NS)
    assert sizes.of("k", "cpu") == 0


def test_of_too_many_the_oldest_are_forgotten():
    sizes = KnownSizes()
    for n in range(4097):
        sizes.learn(str(n), "cpu", 1, n)
        sizes.learn("used", "cpu", 1, n)
    assert (sizes.of("0", "cpu"), sizes.of("used", "cpu"), sizes.of("4096", "cpu")) == (0, 1, 1)
