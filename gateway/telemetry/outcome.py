"""How a request ended, in the words of metrics and spans."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    Bug,
    Cancelled,
    Denied,
    Exhausted,
    Expired,
    GatewayError,
    InvalidRequest,
    ModelFailure,
    NotFound,
    NotOffered,
    NotReady,
    Unauthenticated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Outcome(StrEnum):
    OK = "ok"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    BUG = "bug"
    NOT_OFFERED = "not_offered"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"

    @classmethod
    def of(cls, error: BaseException | None) -> Outcome:
        """The outcome of a request that ended with `error`; OK for None, BUG for what is not a
        `GatewayError`.

        A subclass counts as the nearest listed cause above it, a cause of its own as FAILED.
        """
        if error is None:
            return cls.OK
        for kind in type(error).__mro__:
            outcome = _OUTCOMES.get(kind)
            if outcome is not None:
                return outcome
        return cls.BUG


_OUTCOMES: Mapping[type, Outcome] = MappingProxyType(
    {
        InvalidRequest: Outcome.INVALID,
        NotOffered: Outcome.NOT_OFFERED,
        NotFound: Outcome.NOT_FOUND,
        NotReady: Outcome.UNAVAILABLE,
        Exhausted: Outcome.EXHAUSTED,
        Expired: Outcome.EXPIRED,
        Cancelled: Outcome.CANCELLED,
        Unauthenticated: Outcome.UNAUTHENTICATED,
        Denied: Outcome.DENIED,
        ModelFailure: Outcome.FAILED,
        Bug: Outcome.BUG,
        GatewayError: Outcome.FAILED,
    }
)

# The server's fault by the gRPC semantic conventions: DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and UNKNOWN
# statuses make a server's span an error, the others are the caller's.
SERVER_FAULTS: Final = frozenset({Outcome.UNAVAILABLE, Outcome.EXPIRED, Outcome.FAILED, Outcome.BUG})
