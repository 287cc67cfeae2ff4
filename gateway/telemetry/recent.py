"""The slow and the failed requests of late, for whoever asks why one was slow.

Guarantees: bounded in count and bytes; slow ones are not pushed out by failed ones, nor the other way round.
A request that is neither costs nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.telemetry.token_bucket import TokenBucket
from gateway.telemetry.trace import MAX_ID_CHARS, Execution, LostTry, Phase, phases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.telemetry.outcome import Outcome
    from gateway.telemetry.sampling import SampledBy

MAX_MATES: Final = 16
MAX_MATE_CHARS: Final = 64
MAX_MESSAGE_CHARS: Final = 1024

_ENTRY_BYTES: Final = 1024  # of the objects themselves, without the texts of callers
_PER_S: Final = 500.0  # more are not kept: at overload all requests fail, and each would cost 3 us
_BURST: Final = 1000.0


class RecentRequest(msgspec.Struct, frozen=True):
    """What is known of one request that has ended. Texts that a caller chose are cut.

    Times are monotonic nanoseconds, but for `arrived_unix_ns`. `trace_id` is the caller's or the gateway's
    own, '' where there is none; `traced` says whether its spans were made. `route` says what chose the
    version. `mates` are ids of requests of the same batch, of `execution.requests - 1`.
    """

    why: SampledBy
    outcome: Outcome
    model: str
    arrived_ns: int
    settled_ns: int
    arrived_unix_ns: int
    request_id: str = ""
    trace_id: str = ""
    traced: bool = False
    version: str = ""
    revision: int = 0
    route: str = ""
    message: str = ""
    enqueued_ns: int = 0
    execution: Execution | None = None
    mates: tuple[str, ...] = ()
    tries: tuple[LostTry, ...] = ()

    @property
    def total_ns(self) -> int:
        return self.settled_ns - self.arrived_ns

    @property
    def phases(self) -> list[Phase]:
        """Where its time went, `admission` first: from its arrival until it was queued, or refused."""
        queued_ns = self.enqueued_ns or self.settled_ns
        admission = Phase("admission", self.arrived_ns, queued_ns)
        return [admission, *phases(self.enqueued_ns, self.execution, self.settled_ns)]

    @property
    def size_bytes(self) -> int:
        """About what it takes to keep it."""
        texts = [self.request_id, self.route, self.message, *self.mates, *[t.reason for t in self.tries]]
        return _ENTRY_BYTES + sum([4 * len(text) for text in texts])


class Ring:
    """The last entries, at most `max_count` of them with at most `max_bytes`."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._entries: deque[RecentRequest] = deque()
        self._admission = TokenBucket(_PER_S, _BURST)
        self.size_bytes = 0

    def admit(self, now_ns: int) -> bool:
        """Whether another one may be added now; ask before it is made."""
        return self._admission.take(now_ns)

    def add(self, entry: RecentRequest) -> None:
        self._entries.append(entry)
        self.size_bytes += entry.size_bytes
        while len(self._entries) > self._max_count or self.size_bytes > self._max_bytes:
            self.size_bytes -= self._entries.popleft().size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[RecentRequest]:
        """The newest first."""
        return reversed(self._entries)


class Recent:
    """Changed and read from the event loop's thread."""

    def __init__(self, max_count: int = 1024, max_bytes: int = 2 << 20) -> None:
        self.slow = Ring(max_count, max_bytes)
        self.failed = Ring(max_count, max_bytes)

    def find(self, id_: str) -> list[RecentRequest]:
        """Return what is kept under this request id or this trace id (32 hexadecimal digits), the newest
        first.
        """
        if not id_:
            return []
        id_, trace_id = id_[:MAX_ID_CHARS], id_.lower()
        return self._newest([e for e in self._all() if e.request_id == id_ or e.trace_id == trace_id])

    def latest(self, limit: int, model: str = "") -> list[RecentRequest]:
        """Return the last ones, of all models or of one, the newest first."""
        return self._newest([e for e in self._all() if not model or e.model == model])[:limit]

    def _all(self) -> Iterator[RecentRequest]:
        yield from self.slow
        yield from self.failed

    @staticmethod
    def _newest(entries: list[RecentRequest]) -> list[RecentRequest]:
        return sorted(entries, key=lambda entry: entry.settled_ns, reverse=True)
