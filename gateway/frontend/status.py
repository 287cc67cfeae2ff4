"""The one map from causes to gRPC status codes."""

from __future__ import annotations

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

PUSHBACK_KEY = "grpc-retry-pushback-ms"
# Clients refuse a status of more than 8 KiB of trailing metadata, where a byte may take three; names in
# messages come from the caller.
MAX_MESSAGE_BYTES = 2048

_CODES: dict[type[GatewayError], int] = {
    Cancelled: 1,
    InvalidRequest: 3,
    Expired: 4,
    NotFound: 5,
    Denied: 7,
    Exhausted: 8,
    NotOffered: 12,
    Bug: 13,
    ModelFailure: 13,
    NotReady: 14,
    Unauthenticated: 16,
}


def status_code(error: GatewayError) -> int:
    """Return the gRPC status code of an error: its nearest listed cause, INTERNAL without one."""
    for type_ in type(error).__mro__:
        if type_ in _CODES:
            return _CODES[type_]
    return 13


def status_message(error: GatewayError) -> str:
    """Return what the caller is told, cut to MAX_MESSAGE_BYTES of UTF-8."""
    message = str(error)
    if len(message) * 4 <= MAX_MESSAGE_BYTES:
        return message
    encoded = message.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "..."


def retry_after_ms(error: GatewayError) -> int | None:
    """Return when a client may try again, None where a retry makes no sense."""
    return error.retry_after_ms if isinstance(error, Exhausted) else None


def pushback(error: GatewayError) -> tuple[tuple[str, str], ...]:
    """Return the trailing metadata that says the same; empty for None."""
    after_ms = retry_after_ms(error)
    return () if after_ms is None else ((PUSHBACK_KEY, str(after_ms)),)
