"""Collects the calls that arrive together, so that the data plane sees them as one burst.

grpcio hands over one request at a time, and reading it costs more than small models take to run. A burst is
therefore held while the loop still has other requests to read: until nothing has arrived for a few turns of
the loop, or the burst is as large as a batch may usefully be, or it has been held long enough. How long
follows the recent concurrency: a lone caller is never held, and among 32 callers one is for at most 8 ms, as
long as others keep arriving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from gateway.call import Call, CallId
    from gateway.clock import Clock
    from gateway.frontend.seam import OnCalls, OnCancels

MAX_CALLS = 64
HOLD_NS_PER_CALLER = 250_000
MAX_HOLD_NS = 10_000_000
MAX_QUIET_TURNS = 8
_WINDOW_NS = 250_000_000  # the concurrency is the most that was seen in this window and the one before


class Burst:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, on_calls: OnCalls, on_cancels: OnCancels
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._on_calls = on_calls
        self._on_cancels = on_cancels
        self._calls: list[Call] = []
        self._cancels: list[CallId] = []
        self._due = False
        self._seen = 0
        self._quiet = 0
        self._concurrency = 0
        self._previous = self._current = 0  # the most unanswered calls seen in each window
        self._window_ends_ns = 0

    def add(self, call: Call, waiting: int) -> None:
        """Add a call; `waiting` is how many are unanswered at present."""
        self._calls.append(call)
        if waiting > self._current:
            self._current = waiting
            self._concurrency = max(waiting, self._previous)
        if call.arrived_ns > self._window_ends_ns:
            idle = call.arrived_ns > self._window_ends_ns + _WINDOW_NS
            self._previous, self._current = (0 if idle else self._current), waiting
            self._concurrency = max(self._previous, waiting)
            self._window_ends_ns = call.arrived_ns + _WINDOW_NS
        self._turn_soon()

    def cancel(self, id: CallId) -> None:
        self._cancels.append(id)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """One turn of the loop has passed: hand over, or wait for another."""
        count = len(self._calls)
        self._quiet = self._quiet + 1 if count == self._seen else 0
        self._seen = count
        hold_ns = min(self._concurrency * HOLD_NS_PER_CALLER, MAX_HOLD_NS)
        quiet_turns = min(self._concurrency - 1, MAX_QUIET_TURNS)
        if (
            0 < count < MAX_CALLS
            and self._quiet < quiet_turns
            and not self._cancels
            and self._clock.now_ns() - self._calls[0].arrived_ns < hold_ns
        ):
            self._loop.call_soon(self._turn)
            return
        self._due = False
        self._seen = self._quiet = 0
        calls, self._calls = self._calls, []
        cancels, self._cancels = self._cancels, []
        if calls:
            self._on_calls(calls)
        if cancels:
            self._on_cancels(cancels)
