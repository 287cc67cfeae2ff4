"""How long etcd may take for what, and how long to wait between tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Elections of etcd's take 1 to 2 s by default, so calls outlast one."""

    try_s: float = 2.0  # one try of a call at one endpoint
    call_s: float = 5.0  # a call with all its tries
    commit_s: float = 4.0  # the try of a commit, which is not repeated
    fresh_s: float = (
        1.0  # an endpoint that answered so lately is sent a commit without asking whether it lives
    )
    quiet_s: float = 2.0  # a watch that heard nothing for so long asks for a sign of life, every `ask_s`
    ask_s: float = 1.0
    dead_s: float = 5.0  # one that heard nothing for so long gives its endpoint up
    relist_s: float = 300.0  # how often a watch reads everything again and compares
    first_wait_s: float = 0.1
    # Channels connect once a second at most, and waiting for that adds to this: an etcd that comes back is to
    # be heard within 2 s.
    longest_wait_s: float = 0.7


class Backoff:
    """Full jitter, so that many clients of one cluster spread out: a random part of a doubling time."""

    def __init__(self, timing: Timing, random: random.Random) -> None:
        self._timing = timing
        self._random = random
        self._failures = 0

    def forgive(self) -> None:
        self._failures = 0

    def wait_s(self) -> float:
        """Return how long to wait after one more failure."""
        timing = self._timing
        limit_s = min(timing.first_wait_s * 2 ** min(self._failures, 30), timing.longest_wait_s)
        self._failures += 1
        return self._random.uniform(0.0, limit_s)
