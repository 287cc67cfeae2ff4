"""The gateways of one client and whose turn it is.

Calls take the gateways in turn. One that answered UNAVAILABLE rests for a while, so that a dead gateway does
not cost every call an attempt; when all of them rest, they are taken in turn again. Choosing and resting are
single dictionary and counter operations, so threads may share a ring without a lock.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

REST_S = 1.0


class Endpoints:
    """`targets` are gRPC targets, usually `host:port`; the same order is used by every index.

    Raises TypeError or ValueError unless there is at least one and all are non-empty texts.
    """

    def __init__(self, targets: str | Sequence[str], *, rest_s: float = REST_S) -> None:
        listed = (targets,) if isinstance(targets, str) else tuple(targets)
        for target in listed:
            if not isinstance(target, str):
                raise TypeError(f"an endpoint must be text such as 'host:8001', not {target!r}")
            if not target.strip():
                raise ValueError("an endpoint must not be empty")
        if not listed:
            raise ValueError("at least one endpoint is needed")
        self.targets = listed
        self._rest_s = rest_s
        self._turn = itertools.count()
        self._rests_until_s: dict[int, float] = {}  # {index: clock time}

    def __len__(self) -> int:
        return len(self.targets)

    def choose(self, now_s: float, tried: Collection[int] = ()) -> int:
        """The next in turn, preferring those not `tried` in this call and then those not resting."""
        start = next(self._turn)
        order = [(start + step) % len(self.targets) for step in range(len(self.targets))]
        return min(order, key=lambda index: (index in tried, self._rests_until_s.get(index, now_s) > now_s))

    def rest(self, index: int, now_s: float) -> None:
        """Let others go first for a while."""
        self._rests_until_s[index] = now_s + self._rest_s
