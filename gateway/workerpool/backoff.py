"""How long to wait before the next try: not at all after one failure, then doubling, with jitter, up to a
limit.
"""

from __future__ import annotations

import random


class Backoff:
    """`after_s` is asked at each failure with how long things went well before it; a long good time
    forgives.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        limit_s: float = 30.0,
        forgiven_after_s: float = 30.0,
        seed: int | None = None,
    ) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._forgiven_after_s = forgiven_after_s
        self._random = random.Random(seed)
        self.failures = 0

    def after_s(self, good_s: float, *, limit_s: float | None = None) -> float:
        """Return how long to wait after this failure; `limit_s` lowers the limit for it."""
        if good_s >= self._forgiven_after_s:
            self.failures = 0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        wait_s: float = min(
            self._first_s * 2 ** min(self.failures - 2, 30), self._limit_s if limit_s is None else limit_s
        )
        return wait_s * self._random.uniform(0.75, 1.25)
