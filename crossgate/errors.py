"""What a call to a gateway can fail with.

A call raises `CrossgateError` (one class per status that a caller may want to treat on its own) or, for
arguments that could never be sent, `TypeError` or `ValueError` before any I/O.
"""

from __future__ import annotations

from typing import Any, ClassVar

import grpc

from crossgate.headers import Headers, read_trailers


class CrossgateError(Exception):
    """A call failed.

    `code` is the gRPC status code, `details` the server's message, `trailing_metadata` what came with it
    (lower-case keys), `endpoint` the gateway that answered, empty where none was involved. Statuses without a
    class of their own (UNKNOWN, ABORTED, ...) are raised as this class. When a call was tried several times,
    the error is that of the last attempt and the earlier ones are its notes.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        details: str = "",
        *,
        code: grpc.StatusCode | None = None,
        trailing_metadata: Headers = (),
        endpoint: str = "",
    ) -> None:
        super().__init__(details)
        self.details = details
        self.code = self.default_code if code is None else code
        self.trailing_metadata = trailing_metadata
        self.endpoint = endpoint

    def __str__(self) -> str:
        source = f" (from {self.endpoint})" if self.endpoint else ""
        return f"{self.code.name}: {self.details}{source}"


class InvalidRequest(CrossgateError):
    """The request itself is wrong, for example an input's shape; sending it again cannot help."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(CrossgateError):
    """No such model, version or label."""

    default_code = grpc.StatusCode.NOT_FOUND


class Unavailable(CrossgateError):
    """No gateway could be reached, or none can serve the model now."""

    default_code = grpc.StatusCode.UNAVAILABLE


class Exhausted(CrossgateError):
    """A limit was reached: a full queue, a quota, or the size of a message."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(CrossgateError):
    """The deadline passed; the model may have run or not."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unauthenticated(CrossgateError):
    """No credentials, or ones that the gateway does not accept."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(CrossgateError):
    """The caller is known and may not do this."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class ModelFailed(CrossgateError):
    """The model's own failure with its runtime's message, or a bug of the gateway with an error id."""

    default_code = grpc.StatusCode.INTERNAL


class NotOffered(CrossgateError):
    """The server does not implement this method."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class Cancelled(CrossgateError):
    """The call was given up by the server, or because its client was closed."""

    default_code = grpc.StatusCode.CANCELLED


class MalformedResponse(CrossgateError):
    """The call succeeded, but its answer breaks the protocol; `details` names the output."""

    default_code = grpc.StatusCode.INTERNAL


class RequestFailed(CrossgateError):
    """One request of a stream failed and the stream goes on.

    The protocol gives a message and no status, so `code` is UNKNOWN. `id` is that of the request where the
    server repeats it, else empty.
    """

    def __init__(self, details: str = "", *, request_id: str = "", endpoint: str = "") -> None:
        super().__init__(details, endpoint=endpoint)
        self.id = request_id


_BY_CODE: dict[grpc.StatusCode, type[CrossgateError]] = {
    error.default_code: error
    for error in (
        InvalidRequest,
        NotFound,
        Unavailable,
        Exhausted,
        DeadlineExceeded,
        Unauthenticated,
        PermissionDenied,
        ModelFailed,
        NotOffered,
        Cancelled,
    )
}


def error_of(failure: Any, endpoint: str) -> CrossgateError:
    """The typed error for a failed call: a `grpc.RpcError` that is also a call, or a
    `grpc.aio.AioRpcError`."""
    code = failure.code()
    kind = _BY_CODE.get(code, CrossgateError)
    return kind(
        failure.details() or "",
        code=code,
        trailing_metadata=read_trailers(failure.trailing_metadata()),
        endpoint=endpoint,
    )
