"""A limit on how often the same warning is logged."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.clock import Clock

_NS_PER_S: Final = 1_000_000_000


class _Window:
    __slots__ = ("passed", "started_ns", "suppressed")

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self.passed = 0
        self.suppressed = 0


class Repeats:
    """Lets `burst` equal messages pass in each window of `window_s` seconds, which opens with the first
    of them.

    Remembers at most `capacity` messages; when there are more, the one not seen for longest is
    forgotten, which at worst lets it pass again.
    """

    def __init__(self, clock: Clock, *, burst: int = 5, window_s: float = 10.0, capacity: int = 1024) -> None:
        self._clock = clock
        self._burst = burst
        self._window_ns = int(window_s * _NS_PER_S)
        self._capacity = capacity
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()  # {message: window}, least recent first

    def admit(self, message: Hashable) -> int | None:
        """None if `message` is not to be logged, else how many equal ones were suppressed since the
        last that was."""
        now_ns = self._clock.now_ns()
        window = self._windows.get(message)
        if window is None:
            window = self._windows[message] = _Window(now_ns)
            if len(self._windows) > self._capacity:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(message)
            if now_ns - window.started_ns >= self._window_ns:
                window.started_ns = now_ns
                window.passed = 0
        if window.passed >= self._burst:
            window.suppressed += 1
            return None
        window.passed += 1
        suppressed, window.suppressed = window.suppressed, 0
        return suppressed

    def __len__(self) -> int:
        return len(self._windows)
