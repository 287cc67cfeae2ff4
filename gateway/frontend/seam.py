"""The seam between a transport and the data plane.

Below it there is no coroutine, future, task or timer per request. A front end collects the calls of one
wake-up into a burst, and is given the replies of a batch at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.call import BatchReply, Call, CallId, Reply

OnCalls = Callable[[Sequence[Call]], None]
OnCancels = Callable[[Sequence[CallId]], None]
# of a message and its metadata; what cannot be answered at once is answered by a coroutine
UnaryServicer = Callable[[bytes, Mapping[str, str]], bytes | Coroutine[Any, Any, bytes]]
# a generator, so that whoever asks for no more of its messages can close it at once
StreamServicer = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


class Servicers(NamedTuple):
    """The RPCs that are not inference: bytes in, bytes out, written once for all front ends.

    Both are by full method name, `/package.Service/Method`. A servicer raises `GatewayError` for what it
    cannot answer.
    """

    unary: Mapping[str, UnaryServicer]
    streams: Mapping[str, StreamServicer]


class Traffic(NamedTuple):
    """Connections: open now, accepted so far, closed because of what the peer did. Bytes of memory: held by
    requests that are being read or are not settled, and by answers that have not left.
    """

    open: int
    accepted: int
    refused: int
    request_bytes: int
    answer_bytes: int


class Frontend(Protocol):
    """One transport. `start` returns at once; `settle` is synchronous and never raises."""

    def start(self, on_calls: OnCalls, on_cancels: OnCancels) -> None:
        """Deliver every call from now on: bursts of calls, and the ids of those whose caller went away."""
        ...

    def settle(self, replies: Sequence[Reply]) -> None:
        """Send replies. Output buffers are read before this returns; unknown and cancelled calls are passed
        over.
        """
        ...

    def settle_batch(self, reply: BatchReply) -> None:
        """Send the answers of a batch; as `settle`."""
        ...

    def traffic(self) -> Traffic | None:
        """Return what its connections do, None where the transport does not tell."""
        ...

    async def listen(self) -> str:
        """Open the listener; return its address as `host:port`."""
        ...

    async def drain(self, grace_s: float, *, hand_over: bool = False) -> None:
        """Ask connections to go, and wait until what is in flight is answered, up to `grace_s`. `hand_over`:
        another process accepts from the same sockets, and what still comes here is to be served.
        """
        ...

    async def close(self) -> None:
        """End everything at once."""
        ...
