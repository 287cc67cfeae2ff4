from __future__ import annotations

from gateway.telemetry.repeats import Repeats


class FakeClock:
    def __init__(self):
        self.time_ns = 0

    def now_ns(self):
        return self.time_ns

    def advance(self, seconds):
        self.time_ns += int(seconds * 1e9)


def test_burst_passes_and_the_rest_is_counted():
    clock = FakeClock()
    repeats = Repeats(clock, burst=2, window_s=10)
    assert [repeats.admit("a") for _ in range(4)] == [0, 0, None, None]
    clock.advance(10)
    assert [repeats.admit("a") for _ in range(3)] == [2, 0, None]
    clock.advance(10)
    assert repeats.admit("a") == 1


def test_messages_are_limited_each_on_its_own():
    repeats = Repeats(FakeClock(), burst=1)
    assert [repeats.admit(message) for message in "aabb"] == [0, None, 0, None]


def test_least_recent_message_is_forgotten_first():
    repeats = Repeats(FakeClock(), burst=1, capacity=2)
    for message in "aba":
        repeats.admit(message)
    repeats.admit("c")  # in place of b
    assert len(repeats) == 2
    assert repeats.admit("a") is None
    assert repeats.admit("b") == 0


def test_memory_is_bounded():
    repeats = Repeats(FakeClock(), capacity=16)
    for i in range(1000):
        repeats.admit(i)
    assert len(repeats) == 16
