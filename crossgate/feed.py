"""The two directions of a stream: requests on their way out, answers on their way in."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from crossgate.errors import RequestFailed
from crossgate.result import InferResult

if TYPE_CHECKING:
    from crossgate.request import InferRequest
    from protos import inference_pb2 as pb


class RequestFeed:
    """Encodes a stream's requests while gRPC pulls them, in its own thread or task.

    An exception of the user's iterable or of an encoding cancels the call and is kept in `failure`, for the
    reader of the stream to raise; gRPC itself would only log it.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._call: Any = None

    def bind(self, call: Any) -> None:
        """Say which call to cancel; the feed may have failed before this."""
        self._call = call
        if self.failure is not None:
            call.cancel()

    def messages(self, requests: Iterable[InferRequest]) -> Iterator[pb.ModelInferRequest]:
        try:
            for request in requests:
                yield request.to_message()
        except Exception as error:
            self._fail(error)

    async def messages_async(
        self, requests: AsyncIterable[InferRequest] | Iterable[InferRequest]
    ) -> AsyncIterator[pb.ModelInferRequest]:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    yield request.to_message()
            else:
                for request in requests:
                    yield request.to_message()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        if self._call is not None:
            self._call.cancel()


def stream_item(message: pb.ModelStreamInferResponse, endpoint: str) -> InferResult | RequestFailed:
    """The answer to one request. Raises MalformedResponse."""
    if message.error_message:
        return RequestFailed(message.error_message, request_id=message.infer_response.id, endpoint=endpoint)
    return InferResult.from_message(message.infer_response)
