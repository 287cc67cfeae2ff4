"""The tree of expected failures. Owners subclass a cause and hold data; `gateway.frontend.status` maps causes
to gRPC.

Anything raised on a request's way that is not a `GatewayError` is a bug: the caller sees INTERNAL with an
error id, the log sees the rest.
"""

from __future__ import annotations


class GatewayError(Exception):
    """An expected failure of one request. `str(error)` is what the caller is told."""


class InvalidRequest(GatewayError):
    """The request itself is wrong; sending it again cannot help."""


class NotFound(GatewayError):
    """An unknown model, version or label."""


class NotReady(GatewayError):
    """Known, but not able to serve now: loading, lost its workers, or draining. A retry may succeed."""


class Exhausted(GatewayError):
    """A limit was reached. `retry_after_ms` is None where a retry makes no sense."""

    retry_after_ms: int | None = None


class Expired(GatewayError):
    """The deadline passed before or during the run."""


class Cancelled(GatewayError):
    """The caller went away."""


class NotOffered(GatewayError):
    """A call that this server does not implement."""


class Unauthenticated(GatewayError):
    """Nobody knows who the caller is."""


class Denied(GatewayError):
    """The caller is known, and may not do this."""


class ModelFailure(GatewayError):
    """The model's own failure, with the runtime's message."""


class Bug(GatewayError):
    """A defect of the gateway: the caller gets the id under which the log holds the details."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error {error_id}; details are in the gateway's log under this id")
        self.error_id = error_id
