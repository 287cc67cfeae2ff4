"""The seam between a transport and the data plane.

Below it there is no coroutine, future, task or timer per request. A front end collects the calls of one
wake-up into a burst, and is given the replies of a batch at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.call import Call, CallId, Reply

OnCalls = Callable[[Sequence[Call]], None]
OnCancels = Callable[[Sequence[CallId]], None]
UnaryServicer = Callable[[bytes], bytes]
StreamServicer = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]


class Servicers(NamedTuple):
    """The RPCs that are not inference: bytes in, bytes out, written once for all front ends.

    Both are by full method name, `/package.Service/Method`. A servicer raises `GatewayError` for what it
    cannot answer.
    """

    unary: Mapping[str, UnaryServicer]
    streams: Mapping[str, StreamServicer]


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

    async def listen(self) -> str:
        """Open the listener; return its address as `host:port`."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Take no new connections and requests, and wait until what is in flight is answered, up to
        `grace_s`.
        """
        ...

    async def close(self) -> None:
        """End everything at once."""
        ...
