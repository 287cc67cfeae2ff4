"""What an answer of etcd that is an error means, whichever version gave it.

The texts are those of etcd's `api/v3rpc/rpctypes/error.go`; codes alone do not tell them apart.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

import grpc

from gateway.config.store.store import StoreRefused


class Cause(enum.Enum):
    UNSENT = "unsent"  # etcd did surely not carry it out; another endpoint, or later
    UNCLEAR = "unclear"  # it may have been carried out
    TOKEN = "token"  # nothing was done; a new token may help
    DENIED = "denied"
    CREDENTIALS = "credentials"
    NO_AUTH = "no auth"  # etcd has its authentication switched off
    COMPACTED = "compacted"
    FUTURE = "future"  # a revision that there is not yet
    REPLY_TOO_LARGE = "reply too large"
    TOO_LARGE = "too large"
    NO_LEASE = "no lease"
    NO_SPACE = "no space"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Failure:
    cause: Cause
    text: str  # as etcd or gRPC says it, shortened


class Answered(StoreRefused):
    """etcd answered with an error that no other endpoint and no second try would change."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


# In order: the first text that is part of the message decides.
_TEXTS: Final = (
    ("invalid auth token", Cause.TOKEN),
    ("revision of auth store is old", Cause.TOKEN),
    ("revision in header is old", Cause.TOKEN),
    ("user name is empty", Cause.TOKEN),
    ("invalid user ID or password", Cause.CREDENTIALS),
    ("user name not found", Cause.CREDENTIALS),
    ("authentication is not enabled", Cause.NO_AUTH),
    ("permission denied", Cause.DENIED),
    ("required revision has been compacted", Cause.COMPACTED),
    ("required revision is a future revision", Cause.FUTURE),
    ("Received message larger than max", Cause.REPLY_TOO_LARGE),  # gRPC here; etcd's own says "received"
    ("received message larger than max", Cause.TOO_LARGE),
    ("request is too large", Cause.TOO_LARGE),
    ("too many operations in txn", Cause.TOO_LARGE),
    ("requested lease not found", Cause.NO_LEASE),
    ("database space exceeded", Cause.NO_SPACE),
    ("too many requests", Cause.UNSENT),
    ("etcdserver: no leader", Cause.UNSENT),
    ("rpc not supported for learner", Cause.UNSENT),
    ("failed to connect to all addresses", Cause.UNSENT),
    ("DNS resolution failed", Cause.UNSENT),
    ("Timeout occurred: FD Shutdown", Cause.UNSENT),
)
_AWAY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_LONGEST: Final = 200
_TARGET: Final = re.compile(r"(UNKNOWN: )?((ipv[46]|dns):\S+: )?")


def failure_of(code: grpc.StatusCode, details: str | None) -> Failure:
    """What an RPC that ended with this status means."""
    details = details or ""
    for text, cause in _TEXTS:
        if text in details:
            return Failure(cause, _shortened(code, details))
    if code is grpc.StatusCode.UNIMPLEMENTED:  # it is no etcd, or not one of version 3
        return Failure(Cause.UNSENT, f"no etcd 3 answers there ({_shortened(code, details)})")
    return Failure(Cause.UNCLEAR if code in _AWAY else Cause.OTHER, _shortened(code, details))


def _shortened(code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    # gRPC's own: "failed to connect to all addresses; last error: UNKNOWN: ipv4:...: connect: Connection ..."
    text = _TARGET.sub("", details.rpartition("last error: ")[2], count=1) or code.name
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode()
