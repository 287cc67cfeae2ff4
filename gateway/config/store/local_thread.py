"""The thread that a local store does its blocking work in."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from gateway.config.store.store import StoreAway

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CALL_S: Final = 5.0
_CAPACITY: Final = 1000  # calls that wait; whoever comes then is told that the store is away
_CLOSE_S: Final = 5.0


class _Call:
    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Future[Any] = Future()
        self._work = work

    def do(self) -> None:
        if not self.result.set_running_or_notify_cancel():
            return
        try:
            result = self._work()
        except BaseException as error:
            self.result.set_exception(error)
        else:
            self.result.set_result(result)


class LocalThread:
    """Does one call after the other, and `idle` at least every `idle_s()` seconds, even while calls keep
    coming; never, while that is None. What `idle` raises ends the thread: it must not fail.

    The thread never keeps the process alive: a disk that hangs cannot be interrupted.
    """

    def __init__(self, where: str, idle: Callable[[], None], idle_s: Callable[[], float | None]) -> None:
        self._where = where
        self._idle = idle
        self._idle_s = idle_s
        self._calls: queue.Queue[_Call | None] = queue.Queue(_CAPACITY)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="local store", daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[], T], late: type[StoreAway] = StoreAway) -> T:
        """Return what `work` returns in the thread, or raise what it raises.

        A caller that is cancelled meanwhile cannot tell whether it was done.

        Raises:
            StoreAway: it was not done in time, and never will be.
            late: it was not done in time, but may be later.
            RuntimeError: the thread was closed.
        """
        if self._closed:
            raise RuntimeError(f"{self._where} has been closed")
        call = _Call(work)
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            raise StoreAway(f"{self._where} does not answer: {_CAPACITY} calls are waiting") from None
        try:
            async with asyncio.timeout(CALL_S):
                return cast("T", await asyncio.wrap_future(call.result))
        except TimeoutError:
            if call.result.cancel():
                raise StoreAway(f"{self._where} has not answered for {CALL_S:g} s") from None
            if call.result.done():
                return cast("T", call.result.result())
            raise late(f"{self._where} has not answered for {CALL_S:g} s") from None

    async def close(self, last: Callable[[], None]) -> None:
        """Do what waits, then `last`, and end the thread. Give a disk that hangs up after some seconds."""
        self._closed = True
        call = _Call(last)
        for each in (call, None):
            try:
                self._calls.put_nowait(each)
            except queue.Full:
                return  # stuck for good: see above
        try:
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.wrap_future(call.result)
                await self._ended.wait()
        except TimeoutError:
            return
        self._thread.join()  # its last act was to say that it has ended

    def _run(self) -> None:
        try:
            self._work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop did not wait for a disk that hung
                self._loop.call_soon_threadsafe(self._ended.set)

    def _work(self) -> None:
        idle_at = time.monotonic()
        while True:
            idle_s = self._idle_s()
            wait_s = None if idle_s is None else max(idle_at + idle_s - time.monotonic(), 0.0)
            try:
                call = self._calls.get(timeout=wait_s)
            except queue.Empty:
                pass
            else:
                if call is None:
                    return
                call.do()
            if idle_s is not None and time.monotonic() - idle_at >= idle_s:
                self._idle()
                idle_at = time.monotonic()
