"""One stream of etcd's watch service: opened, listened to, and given up when it falls silent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from aetcd import rpc

from gateway.config.store.etcd.failure import Cause, failure_of

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.config.store.etcd.keyspace import KeySpace
    from gateway.config.store.etcd.session import Session
    from gateway.config.store.store import Span

# Not 0, which is also what a message without an id has.
WATCH_ID: Final = 1


class StreamFailed(Exception):
    """The stream ended, for the reason it says. Another one may be opened."""


class Canceled(Exception):
    """etcd ended the watch."""

    def __init__(self, reply: Any) -> None:
        super().__init__(reply.cancel_reason or "etcd gives no reason")
        self.compacted = reply.compact_revision > 0 or "compacted" in reply.cancel_reason
        self.denied = "permission denied" in reply.cancel_reason or "auth" in reply.cancel_reason


class WatchStream:
    """A watch at the endpoint that the session asks first. `async with` ends it."""

    def __init__(self, session: Session, keys: KeySpace, span: Span) -> None:
        self._session = session
        self._keys = keys
        self._span = span
        self._endpoint = session.endpoint
        self._call: Any = None
        self._next: asyncio.Task[Any] | None = None  # the next message; cancelling it would end the stream
        self._heard_at_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None:
            self._call.cancel()
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait((self._next,))
            if not self._next.cancelled():
                self._next.exception()  # of an ended stream: nobody else asks

    async def open(self, revision: int) -> None:
        """Watch from a revision on. Raises StreamFailed, Canceled, StoreAway and StoreRefused."""
        metadata = await self._session.metadata()
        self._endpoint = self._session.endpoint
        self._call = self._endpoint.watch.Watch(metadata=metadata)
        self.pause_is_over()
        await self._send(
            rpc.WatchRequest(
                create_request=rpc.WatchCreateRequest(
                    key=self._keys.encode(self._span.start),
                    range_end=self._keys.encode(self._span.end),
                    start_revision=revision,
                    watch_id=WATCH_ID,
                    progress_notify=True,
                    fragment=True,
                )
            )
        )
        reply = await self.receive(float("inf"))
        assert reply is not None
        if not reply.created:
            raise self._failed("a watch began without being created")

    async def receive(self, until_s: float) -> Any:
        """Return the next message, None when there was none until then (the loop's time). A stream that is
        silent is asked for a sign of life, and given up when it gives none.

        Raises StreamFailed and Canceled.
        """
        timing = self._session.timing
        while True:
            if self._next is None:
                self._next = asyncio.create_task(self._call.read())
            now_s = _now_s()
            if now_s >= until_s:
                return None
            done, _ = await asyncio.wait((self._next,), timeout=max(min(timing.ask_s, until_s - now_s), 0.0))
            if done:
                return self._received()
            silent_s = _now_s() - self._heard_at_s
            if silent_s >= timing.dead_s:
                raise self._failed(f"silent for {silent_s:.1f} s")
            if silent_s >= timing.quiet_s:
                await self._send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def pause_is_over(self) -> None:
        """Nobody listened for a while: silence counts from now on."""
        self._heard_at_s = _now_s()

    def _received(self) -> Any:
        assert self._next is not None
        task, self._next = self._next, None
        try:
            reply = task.result()
        except grpc.aio.AioRpcError as error:
            raise self._failed_by(error) from None
        if reply is grpc.aio.EOF:
            raise self._failed("the stream ended")
        self._session.heard(self._endpoint)
        self._heard_at_s = _now_s()
        if reply.canceled:
            raise Canceled(reply)
        return reply

    async def _send(self, request: Any) -> None:
        try:
            async with asyncio.timeout(self._session.timing.try_s):
                await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._failed_by(error) from None
        except asyncio.InvalidStateError:
            pass  # the stream has ended: whoever receives next learns why
        except TimeoutError:
            raise self._failed("no answer in time") from None

    def _failed_by(self, error: grpc.aio.AioRpcError) -> StreamFailed:
        failure = failure_of(error.code(), error.details())
        if failure.cause is Cause.TOKEN:
            self._session.forget_token()
        return self._failed(failure.text)

    def _failed(self, why: str) -> StreamFailed:
        self._session.left(self._endpoint, why)
        return StreamFailed(f"{self._endpoint.name}: {why}")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
