"""Whether a failed attempt is tried again, and after how long. Pure: a failure goes in, a delay comes out.

Follows gRPC proposal A6: UNAVAILABLE is retried; RESOURCE_EXHAUSTED is retried when the server asks for it
with `grpc-retry-pushback-ms`; a pushback that is negative or no integer forbids any retry.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

PUSHBACK_KEY = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Failure:
    """A snapshot of a call after an attempt failed.

    `attempts` counts those made, this one included. `pushback` is the server's as it came. `untried_endpoint`
    says whether some gateway has not been tried in this call. `remaining_s` is the time to the deadline, None
    without one. `jitter` is random in [0, 1).
    """

    code: grpc.StatusCode
    attempts: int
    pushback: str | None
    untried_endpoint: bool
    remaining_s: float | None
    jitter: float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `max_attempts` in total, which is at least one. The backoff before attempt n + 1 is drawn from
    the upper half of `initial_backoff_s * multiplier ** (n - 1)`, which `max_backoff_s` caps."""

    max_attempts: int = 3
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"a call needs at least one attempt, not {self.max_attempts}")

    def delay_s(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, None for no further attempt.

        A gateway that has not been tried yet is tried at once. A wait that would reach the deadline is no
        wait but the end of the call.
        """
        if failure.attempts >= self.max_attempts:
            return None
        delay_s = self._wanted_delay_s(failure)
        if delay_s is None or (failure.remaining_s is not None and delay_s >= failure.remaining_s):
            return None
        return delay_s

    def _wanted_delay_s(self, failure: Failure) -> float | None:
        if failure.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
            return None
        if failure.pushback is not None:
            return _pushback_s(failure.pushback)
        if failure.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        if failure.untried_endpoint:
            return 0.0
        backoff_s = self.initial_backoff_s * self.multiplier ** (failure.attempts - 1)
        return min(backoff_s, self.max_backoff_s) * (1 + failure.jitter) / 2


def _pushback_s(pushback: str) -> float | None:
    try:
        milliseconds = int(pushback)
    except ValueError:
        return None
    return None if milliseconds < 0 else milliseconds / 1000
