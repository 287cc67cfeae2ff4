"""What happens to the members of a lost batch, and who is to blame for a worker's death.

A lost batch is a suspect: its members run again, each alone on a slot that has nothing else, within a global
budget and at most `MAX_RUNS` times. Who kills a worker alone is the culprit and fails; the kill is then not
the model's. Only kills for which all members turn out innocent count towards the model's quarantine.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

from gateway.errors import ModelFailure, NotReady

if TYPE_CHECKING:
    from gateway.scheduling.item import QueueItem

MAX_RUNS = 3
QUARANTINE_KILLS = 3
QUARANTINE_CULPRITS = 5
QUARANTINE_WINDOW_NS = 60_000_000_000


class Poison(ModelFailure):
    """The request ended its worker while it ran alone."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"model {model}: running this request alone ended its worker: {reason}")


class LostInRun(NotReady):
    """The worker was lost and the request may not run again."""

    def __init__(self, model: str, reason: str, why_not: str) -> None:
        super().__init__(f"model {model}: {reason}; {why_not}")


class Fate(enum.Enum):
    RUN_AGAIN = "run again"
    CULPRIT = "culprit"
    NOT_RETRIED = "the document says retry: never"
    TOO_MANY_RUNS = f"it was lost in {MAX_RUNS} runs"
    NO_BUDGET = "the gateway's retry budget is used up"


def fate(*, alone: bool, lost: int, retry: bool, budget: bool) -> Fate:
    """Return what becomes of a member that was running when its worker was lost; `lost` counts this loss."""
    if alone:
        return Fate.CULPRIT
    if not retry:
        return Fate.NOT_RETRIED
    if lost >= MAX_RUNS:
        return Fate.TOO_MANY_RUNS
    return Fate.RUN_AGAIN if budget else Fate.NO_BUDGET


class RetryBudget:
    """Re-runs that may be made: a full batch or two at once, then as many as a tenth of what succeeds."""

    def __init__(self, limit: float = 1000.0, per_success: float = 0.1) -> None:
        self._limit = limit
        self._per_success = per_success
        self._tokens = limit

    def succeeded(self, requests: int) -> None:
        self._tokens = min(self._tokens + self._per_success * requests, self._limit)

    def take(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Kill:
    """One death of a worker during one model's batch, until its members are cleared or one is found
    guilty.
    """

    __slots__ = ("at_ns", "pending")

    def __init__(self, at_ns: int, members: set[int]) -> None:
        self.at_ns = at_ns
        self.pending = members  # sequence numbers of members not yet cleared


class KillLedger:
    """The kills of one servable. `settled` and `guilty` tell of suspects; `record` and `settled` say when it
    is too much.
    """

    def __init__(self) -> None:
        self._open: list[Kill] = []
        self._guilty = 0  # requests found guilty since a run succeeded
        self._unexplained_ns: deque[int] = deque()  # when kills without a culprit happened

    def record(self, now_ns: int, suspects: list[QueueItem]) -> bool:
        """A worker died while these ran; True when the servable is to be quarantined."""
        if suspects:
            self._open.append(Kill(now_ns, {item.sequence for item in suspects}))
            return False
        return self._unexplained(now_ns)

    def guilty(self, item: QueueItem) -> bool:
        """This request killed a worker alone: the kills it took part in are explained. True when so many were
        guilty one after the other, with no success between them, that it must be the servable.
        """
        self.drop(item)
        self._guilty += 1
        return self._guilty >= QUARANTINE_CULPRITS

    def drop(self, item: QueueItem) -> None:
        """This suspect will never be judged: forget the kills it took part in."""
        self._open = [kill for kill in self._open if item.sequence not in kill.pending]

    def proven(self) -> None:
        """A run succeeded."""
        self._guilty = 0

    def settled(self, item: QueueItem, now_ns: int) -> bool:
        """This suspect ran without another kill; True when the servable is to be quarantined."""
        for kill in list(self._open):
            kill.pending.discard(item.sequence)
            if not kill.pending:
                self._open.remove(kill)
                if self._unexplained(now_ns):
                    return True
        return False

    def _unexplained(self, now_ns: int) -> bool:
        kills = self._unexplained_ns
        kills.append(now_ns)
        while kills and kills[0] < now_ns - QUARANTINE_WINDOW_NS:
            kills.popleft()
        return len(kills) >= QUARANTINE_KILLS
