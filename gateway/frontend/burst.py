"""Collects the calls that arrive together, so that the data plane sees them as one burst.

grpcio hands over one request at a time. A burst is therefore held while the loop still has other requests to
read: until nothing has arrived for a few turns of the loop, or a burst is as large as a batch may usefully
be, or `MAX_HOLD_NS` have passed. How many quiet turns are waited for follows the recent concurrency: a lone
caller is never held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from gateway.call import Call, CallId
    from gateway.clock import Clock
    from gateway.frontend.seam import OnCalls, OnCancels

MAX_CALLS = 64
MAX_HOLD_NS = 3_000_000
MAX_QUIET_TURNS = 8
_FORGET = 0.9  # of the concurrency seen, at each burst


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
        self._concurrency = 0.0

    def add(self, call: Call, waiting: int) -> None:
        """Add a call; `waiting` is how many are unanswered at present."""
        self._calls.append(call)
        if waiting > self._concurrency:
            self._concurrency = waiting
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
        quiet_turns = min(int(self._concurrency) - 1, MAX_QUIET_TURNS)
        if (
            0 < count < MAX_CALLS
            and self._quiet < quiet_turns
            and not self._cancels
            and self._clock.now_ns() - self._calls[0].arrived_ns < MAX_HOLD_NS
        ):
            self._loop.call_soon(self._turn)
            return
        self._due = False
        self._seen = self._quiet = 0
        self._concurrency *= _FORGET
        calls, self._calls = self._calls, []
        cancels, self._cancels = self._cancels, []
        if calls:
            self._on_calls(calls)
        if cancels:
            self._on_cancels(cancels)
