"""Control requests to a worker that are not answered yet: loads, probes and what else takes long."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wire.frames import Body, Failure, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound=Body)


class WorkerLost(Exception):
    """The worker went away before it answered; `begun`: it was working on this request."""

    def __init__(self, reason: str, *, begun: bool = False) -> None:
        super().__init__(reason)
        self.begun = begun


class RequestRefused(Exception):
    """The worker answered a control request with a failure."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(eq=False)
class _Question:
    answer: type[Body]
    future: asyncio.Future[Body]
    on_begun: Callable[[], None] | None
    begun: bool = False


class Questions:
    """Those of one link. `lost` is why that is over, None while it is not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids = itertools.count(1)
        self._open: dict[int, _Question] = {}  # {request id: question}
        self.lost: str | None = None

    async def ask(
        self,
        send: Callable[[int], None],
        answer: type[T],
        timeout_s: float,
        on_begun: Callable[[], None] | None = None,
    ) -> T:
        """Send a request under a new id and return its answer. `on_begun` is called when the worker begins.

        Raises:
            RequestRefused: it failed, with the worker's words.
            WorkerLost: the worker went away meanwhile.
            TimeoutError: no answer in time.
        """
        if self.lost is not None:
            raise WorkerLost(self.lost)
        id_ = next(self._ids)
        question = self._open[id_] = _Question(answer, self._loop.create_future(), on_begun)
        try:
            send(id_)
            async with asyncio.timeout(timeout_s):
                return await question.future  # type: ignore[return-value]  # decoded as the question says
        finally:
            self._open.pop(id_, None)

    def begin(self, id_: int) -> None:
        """The worker works on a request."""
        question = self._open.get(id_)
        if question is not None and not question.begun:
            question.begun = True
            if question.on_begun is not None:
                question.on_begun()

    def settle(self, kind: int, id_: int, body: bytes) -> None:
        """Take an ANSWER or a FAILED frame; one to somebody who has given up is ignored. Raises
        ProtocolError.
        """
        question = self._open.get(id_)
        if question is None or question.future.done():
            return
        if kind == Kind.ANSWER:
            question.future.set_result(decode(body, question.answer))
        else:
            failure = decode(body, Failure)
            question.future.set_exception(RequestRefused(failure.message, retryable=failure.retryable))

    def lose(self, reason: str, *, blameless: bool = False) -> None:
        """The link is lost. `blameless`: not because of anything that the worker was doing."""
        self.lost = reason
        for question in self._open.values():
            if not question.future.done():
                question.future.set_exception(WorkerLost(reason, begun=question.begun and not blameless))
