"""The attempts of one call: where each goes, how long it may take, what follows a failure. No I/O.

attempts = Attempts(...)
loop:  attempt = attempts.next()   call attempt.endpoint within attempt.timeout_s
       on failure:  delay_s = attempts.failed(error)   None: raise the error; else wait and go on
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from crossgate.errors import DeadlineExceeded
from crossgate.retry import PUSHBACK_KEY, Failure, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from crossgate.endpoints import Endpoints
    from crossgate.errors import CrossgateError


@dataclass(frozen=True, slots=True)
class Attempt:
    """`endpoint` is an index into the endpoints, `timeout_s` what is left of the call's one deadline."""

    endpoint: int
    timeout_s: float | None


class Attempts:
    """`timeout_s` covers all attempts and the waits between them; None means no deadline. Raises ValueError
    if it is not a number."""

    def __init__(
        self,
        endpoints: Endpoints,
        policy: RetryPolicy,
        *,
        timeout_s: float | None,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        if timeout_s is not None and math.isnan(timeout_s):
            raise ValueError("timeout_s must be a number of seconds or None")
        self._endpoints = endpoints
        self._policy = policy
        self._clock = clock
        self._random = random
        self._deadline_s = None if timeout_s is None or timeout_s == math.inf else clock() + timeout_s
        self._tried: list[int] = []
        self._errors: list[CrossgateError] = []

    def next(self) -> Attempt:
        """Raises the last error when the wait for this attempt used up the deadline, DeadlineExceeded when
        there was no time to begin with (gRPC itself would still send such a call)."""
        remaining_s = self._remaining_s()
        if remaining_s is not None and remaining_s <= 0:
            raise self._last_error() if self._errors else DeadlineExceeded("no time was left to call")
        endpoint = self._endpoints.choose(self._clock(), self._tried)
        self._tried.append(endpoint)
        return Attempt(endpoint, remaining_s)

    def failed(self, error: CrossgateError) -> float | None:
        """Seconds to wait before the next attempt, or None: the call is over and `error`, which then tells of
        the earlier attempts in its notes, is to be raised."""
        self._errors.append(error)
        if error.code is grpc.StatusCode.UNAVAILABLE:
            self._endpoints.rest(self._tried[-1], self._clock())
        pushback = dict(error.trailing_metadata).get(PUSHBACK_KEY)
        delay_s = self._policy.delay_s(
            Failure(
                code=error.code,
                attempts=len(self._errors),
                pushback=None if pushback is None else str(pushback),
                untried_endpoint=len(set(self._tried)) < len(self._endpoints),
                remaining_s=self._remaining_s(),
                jitter=self._random(),
            )
        )
        if delay_s is None:
            self._last_error()
        return delay_s

    def _remaining_s(self) -> float | None:
        return None if self._deadline_s is None else self._deadline_s - self._clock()

    def _last_error(self) -> CrossgateError:
        *earlier, last = self._errors
        for number, error in enumerate(earlier, 1):
            last.add_note(f"attempt {number} failed with {error}")
        return last
