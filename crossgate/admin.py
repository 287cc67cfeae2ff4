"""The admin service of one running gateway: its state, why requests go where they go, and what to tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from crossgate.channel import channel_options
from crossgate.errors import error_of
from protos import admin_pb2 as pb
from protos.admin_pb2_grpc import AdminStub

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from types import TracebackType

_MAX_MESSAGE_BYTES = 16 << 20
_PAGE = 500


class AdminClient:
    """`address` is `unix:/path` or `host:port`. Each call has `timeout_s`, beyond what it waits for by
    itself; none is tried again. Failed calls raise `CrossgateError`.
    """

    def __init__(
        self, address: str, *, credentials: grpc.ChannelCredentials | None = None, timeout_s: float = 10.0
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        options = channel_options(address, _MAX_MESSAGE_BYTES)
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self._stub = AdminStub(self._channel)

    def pages(self, models: Sequence[str] = (), limit: int = _PAGE) -> Iterator[pb.StatusResponse]:
        """Yield the state of the gateway with its models, page by page; of all models without names or
        patterns.
        """
        after = ""
        while True:
            request = pb.StatusRequest(models=models, limit=limit, page=after)
            response: pb.StatusResponse = self._call(self._stub.Status, request)
            yield response
            after = response.next_page
            if not after:
                return

    def watch(
        self, models: Sequence[str] = (), *, limit: int = 0, interval_ms: int = 0
    ) -> Generator[pb.StatusResponse, None, None]:
        """Yield the first page now, after each transition and each interval, until the generator is closed
        or the gateway ends, which raises.
        """
        request = pb.WatchStatusRequest(models=models, limit=limit, interval_ms=interval_ms)
        call = self._stub.WatchStatus(request)
        try:
            yield from call
        except grpc.RpcError as failure:
            raise error_of(failure, self.address) from failure
        finally:
            call.cancel()

    def explain(
        self, model: str, version: str = "", metadata: Mapping[str, str] | None = None
    ) -> pb.ExplainResponse:
        """Return where a request would go now. An unknown model is an answer, in its `failure`."""
        request = pb.ExplainRequest(model=model, version=version, metadata=metadata or {})
        response: pb.ExplainResponse = self._call(self._stub.Explain, request)
        return response

    def recent_requests(self, id: str = "", *, model: str = "", limit: int = 0) -> Sequence[pb.RecentRequest]:
        """Return slow and failed requests of late, the newest first: those with this request id or trace id,
        else the last ones, of one model or of all.
        """
        request = pb.RecentRequestsRequest(id=id, model=model, limit=limit)
        response: pb.RecentRequestsResponse = self._call(self._stub.RecentRequests, request)
        return response.requests

    def drain(
        self,
        *,
        end: bool = False,
        leave: bool = False,
        deadline_s: float | None = None,
    ) -> pb.DrainResponse:
        """Have new requests refused, or taken again with `end`. `leave` ends the process afterwards; without
        it, a deadline is how long to wait for requests in flight.
        """
        request = pb.DrainRequest(end=end, exit=leave, deadline_seconds=deadline_s)
        response: pb.DrainResponse = self._call(self._stub.Drain, request, deadline_s or 0.0)
        return response

    def set_log_level(
        self, level: str, logger: str = "", for_s: float | None = None
    ) -> pb.SetLogLevelResponse:
        """Set the level of a logger, of all without a name; with `for_s` only for so long."""
        request = pb.SetLogLevelRequest(level=level, logger=logger, duration_seconds=for_s)
        response: pb.SetLogLevelResponse = self._call(self._stub.SetLogLevel, request)
        return response

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Any, request: object, waits_s: float = 0.0) -> Any:
        try:
            return method(request, timeout=self._timeout_s + waits_s)
        except grpc.RpcError as failure:
            raise error_of(failure, self.address) from failure
