"""What all calls of one client have in common, whether it blocks or awaits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossgate.attempts import Attempts
from crossgate.headers import Headers, merge_headers

if TYPE_CHECKING:
    from crossgate.endpoints import Endpoints
    from crossgate.retry import RetryPolicy

Clock = Callable[[], float]
Random = Callable[[], float]
Metadata = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class CallPlan:
    """`timeout_s` and `metadata` are the client's defaults. `clock` is monotonic in seconds, `random` uniform
    in [0, 1)."""

    endpoints: Endpoints
    policy: RetryPolicy
    timeout_s: float | None
    metadata: Metadata | None
    clock: Clock
    random: Random

    def __post_init__(self) -> None:
        self.headers(None)
        self.attempts(None)

    def headers(self, metadata: Metadata | None) -> Headers:
        """The client's metadata and the call's, which wins. Raises TypeError for what gRPC cannot send."""
        return merge_headers(self.metadata, metadata)

    def attempts(self, timeout_s: float | None) -> Attempts:
        """The attempts of a call that starts now. Raises ValueError if the timeout is not a number."""
        return Attempts(
            self.endpoints,
            self.policy,
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            clock=self.clock,
            random=self.random,
        )
