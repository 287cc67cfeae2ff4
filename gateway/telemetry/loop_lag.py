"""How late the event loop comes to what is due: what a request that arrives at any moment waits for first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.clock import Alarm

if TYPE_CHECKING:
    import asyncio

    from gateway.clock import Clock
    from gateway.telemetry.histogram import Histogram

PERIOD_NS: Final = 50_000_000
_MOST_AT_ONCE: Final = 200


class LoopLag:
    """Records into `seconds`, in nanoseconds, every 50 ms from `start` to `close`.

    A stall counts once for every tick that it has swallowed, each as late as that tick was: else a stall of a
    second would be one sample among many, and the tail would not show it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, seconds: Histogram) -> None:
        self._clock = clock
        self._seconds = seconds
        self._due_ns = 0
        self._alarm = Alarm(loop, self.tick)

    def start(self) -> None:
        self._due_ns = self._clock.now_ns() + PERIOD_NS
        self._alarm.set(self._due_ns)

    def tick(self) -> None:
        """What was due has its turn."""
        now_ns = self._clock.now_ns()
        late_ns = max(now_ns - self._due_ns, 0)
        swallowed = late_ns // PERIOD_NS + 1
        for i in range(min(swallowed, _MOST_AT_ONCE)):
            self._seconds.observe(late_ns - i * PERIOD_NS)
        if swallowed > _MOST_AT_ONCE:  # a process that was stopped for an hour
            self._seconds.observe_times(late_ns, swallowed - _MOST_AT_ONCE)
        self._due_ns = now_ns + PERIOD_NS
        self._alarm.set(self._due_ns)

    def close(self) -> None:
        self._alarm.close()
