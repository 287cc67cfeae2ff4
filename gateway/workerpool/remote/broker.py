"""The way to a pool on this machine: its broker hands over a connection to the worker itself, so that link
and arenas are those of a worker of our own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from gateway.workerpool.link import WorkerLink
from gateway.workerpool.remote.exchange import (
    Connect,
    Connected,
    Describe,
    Described,
    End,
    Ended,
    Exchange,
    ExchangeBroken,
    Leave,
    Refused,
    is_trusted,
)
from gateway.workerpool.remote.way import (
    DESCRIBE_TIMEOUT_S,
    END_TIMEOUT_S,
    OPEN_TIMEOUT_S,
    Description,
    PoolUnreachable,
    SlotAway,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.workerpool.copying import Copying
    from gateway.workerpool.link import LinkEvents
    from gateway.workerpool.remote.exchange import Answer, Question
    from gateway.workerpool.remote.terms import Terms
    from wire.frames import Hello

# How long after the end of a link the broker may take to say how the worker ended.
_REASON_S = 3.0


class BrokerWay:
    def __init__(self, path: str, terms: Terms, copying: Copying) -> None:
        self._path = path
        self._terms = terms
        self._copying = copying

    def __str__(self) -> str:
        return f"unix:{self._path}"

    def _exchange(self) -> Exchange:
        """Raises PoolUnreachable."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        exchange = Exchange(sock)
        try:
            sock.connect(self._path)
            uid = exchange.peer_uid
        except OSError as error:
            exchange.close()
            raise PoolUnreachable(f"{self}: {error.strerror or error}") from error
        if not is_trusted(uid):
            exchange.close()
            raise PoolUnreachable(f"{self}: who listens there is another user, {uid}")
        return exchange

    async def describe(self) -> Description:
        """Raises PoolUnreachable."""
        exchange = self._exchange()
        try:
            answer, descriptor = await self._ask(exchange, Describe(), DESCRIBE_TIMEOUT_S)
        finally:
            exchange.close()
        _close(descriptor)
        if not isinstance(answer, Described):
            raise PoolUnreachable(f"{self}: {_refusal(answer)}")
        return Description(answer.node, answer.release, answer.slots)

    async def open(self, slot: str, events: LinkEvents, on_goodbye: Callable[[str], None]) -> BrokeredLink:
        """Raises PoolUnreachable, SlotAway."""
        exchange = self._exchange()
        try:
            question = Connect(slot, self._terms.gateway)
            answer, descriptor = await self._ask(exchange, question, OPEN_TIMEOUT_S)
            if descriptor is None or not isinstance(answer, Connected):
                _close(descriptor)
                raise SlotAway(_refusal(answer))
        except BaseException:
            exchange.close()
            raise
        return BrokeredLink(descriptor, exchange, events, on_goodbye, self._terms, self._copying)

    async def end(self, slot: str, pid: int, reason: str) -> None:
        """Raises PoolUnreachable."""
        exchange = self._exchange()
        try:
            await self._ask(exchange, End(slot, pid, reason), END_TIMEOUT_S)
        finally:
            exchange.close()

    async def _ask(
        self, exchange: Exchange, question: Question, timeout_s: float
    ) -> tuple[Question | Answer, int | None]:
        try:
            exchange.send(question)
            return await exchange.receive(timeout_s)
        except ExchangeBroken as error:
            raise PoolUnreachable(f"{self}: {error}") from error


class BrokeredLink:
    """A link to the worker, beside the exchange that it came from. Takes ownership of both. It stays when the
    broker is gone: the worker may be taken up by the pool's successor.
    """

    def __init__(
        self,
        descriptor: int,
        exchange: Exchange,
        events: LinkEvents,
        on_goodbye: Callable[[str], None],
        terms: Terms,
        copying: Copying,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._exchange = exchange
        self._on_lost = events.on_lost
        self._on_goodbye = on_goodbye
        self._lost = asyncio.Event()
        self._end: asyncio.Future[str] = loop.create_future()  # how the worker ended, '' if nobody says so
        self.link = WorkerLink(
            socket.socket(fileno=descriptor),
            loop,
            events._replace(on_lost=self._lose),
            name=terms.gateway,
            segment_bytes=terms.segment_bytes,
            budget_bytes=terms.budget_bytes,
            copying=copying,
        )

    def _lose(self, reason: str) -> None:
        self._lost.set()
        self._on_lost(reason)

    @property
    def busy(self) -> bool:
        return self.link.busy

    async def greet(self, timeout_s: float) -> Hello:
        return await self.link.greet(timeout_s)

    @property
    def way_lost(self) -> bool:
        """Never: the link ends with the worker."""
        return False

    def drain(self) -> None:
        self.link.drain()

    def close(self, reason: str) -> None:
        if not self._end.done() and not self._lost.is_set():
            self._end.set_result("")
        self.link.close(reason)

    async def reason_of_end(self, reason: str) -> str:
        """Return what the broker says, where it says something soon."""
        await asyncio.wait((self._end,), timeout=_REASON_S)
        return self._end.result() if self._end.done() and self._end.result() else reason

    async def move(self) -> None:
        """Listen to the broker until the link is lost, and a little longer for how the worker ended."""
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen())
                await self._lost.wait()
                await asyncio.wait((self._end,), timeout=_REASON_S)
                listening.cancel()
        finally:
            self.close("the gateway closes the link")
            self._exchange.close()

    async def _listen(self) -> None:
        try:
            while True:
                message, descriptor = await self._exchange.receive()
                _close(descriptor)
                if isinstance(message, Leave):
                    self._on_goodbye(message.reason)
                elif isinstance(message, Ended) and not self._end.done():
                    self._end.set_result(message.reason)
        except ExchangeBroken:
            if not self._end.done():
                self._end.set_result("")


def _refusal(answer: Question | Answer) -> str:
    return answer.reason if isinstance(answer, Refused) else "who listens there is no broker of a pool"


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
