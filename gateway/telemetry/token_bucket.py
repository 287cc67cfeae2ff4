"""A limit on how often something is done."""

from __future__ import annotations


class TokenBucket:
    """`burst` at once, and `per_s` in the long run."""

    __slots__ = ("_at_ns", "_burst", "_per_ns", "_tokens")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_ns = per_s / 1e9
        self._burst = self._tokens = burst
        self._at_ns = 0

    def is_empty(self, now_ns: int) -> bool:
        """Whether `take` would refuse; takes nothing."""
        return self._tokens + (now_ns - self._at_ns) * self._per_ns < 1.0

    def take(self, now_ns: int) -> bool:
        """Whether it may be done now, which is counted; `now_ns` is monotonic."""
        self._tokens = min(self._tokens + (now_ns - self._at_ns) * self._per_ns, self._burst)
        self._at_ns = now_ns
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
