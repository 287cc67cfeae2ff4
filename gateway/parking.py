"""Calls that wait for a version which is loaded on demand. They are not planned yet, for nobody knows the
version's inputs; they hold their bytes, and are cancelled, expire and count as all calls do.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from gateway.errors import Exhausted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.call import Call, CallId
    from gateway.routing.table import ModelAsleep

# What brings no deadline waits no longer than a load may take.
LONGEST_WAIT_NS = 600_000_000_000


class Awaited(NamedTuple):
    model: str
    version: str


class TooManyWait(Exhausted):
    retry_after_ms = 1000

    def __init__(self, model: str, version: str, limit: int) -> None:
        super().__init__(
            f"model {model} version {version} is being loaded, and {limit} requests wait, its max_queue_size"
        )


class Parking:
    def __init__(self) -> None:
        self._calls: dict[Awaited, dict[CallId, Call]] = {}
        self._where: dict[CallId, Awaited] = {}
        self._deadlines: list[tuple[int, CallId]] = []  # a heap; entries of calls that left stay on

    def __len__(self) -> int:
        return len(self._where)

    def park(self, call: Call, asleep: ModelAsleep, now_ns: int, due_ns: int) -> None:
        """Keep a call until its version is there, or it expires.

        Raises:
            TooManyWait
        """
        awaited = Awaited(asleep.model, asleep.version)
        waiting = self._calls.setdefault(awaited, {})
        if len(waiting) >= asleep.waits.most:
            raise TooManyWait(*awaited, asleep.waits.most)
        waiting[call.id] = call
        self._where[call.id] = awaited
        heapq.heappush(self._deadlines, (min(due_ns, now_ns + LONGEST_WAIT_NS), call.id))

    def awaited(self) -> list[Awaited]:
        return list(self._calls)

    def take(self, awaited: Awaited) -> list[Call]:
        """Remove and return the calls that wait for a version, in the order in which they came."""
        calls = self._calls.pop(awaited, {})
        for id_ in calls:
            del self._where[id_]
        return list(calls.values())

    def cancel(self, ids: Iterable[CallId]) -> list[Call]:
        """Remove and return those of these calls that wait here."""
        return [call for id_ in ids if (call := self._remove(id_)) is not None]

    def expired(self, now_ns: int) -> list[Call]:
        """Remove and return the calls whose deadline has passed."""
        calls = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            call = self._remove(heapq.heappop(self._deadlines)[1])
            if call is not None:
                calls.append(call)
        return calls

    def next_ns(self) -> int | None:
        """Return the nearest deadline of a call that waits."""
        while self._deadlines and self._deadlines[0][1] not in self._where:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _remove(self, id_: CallId) -> Call | None:
        awaited = self._where.pop(id_, None)
        if awaited is None:
            return None
        waiting = self._calls[awaited]
        call = waiting.pop(id_)
        if not waiting:
            del self._calls[awaited]
        return call
