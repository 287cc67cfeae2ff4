"""Callers whose every answer is compared with the one that is right, and who remember what became of each
request and when.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from crossgate import AsyncClient, CrossgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FACTOR = 2.0
# FP32 holds whole numbers up to 2 ** 24, and the answer is about twice what was sent.
_NUMBERS = 1 << 22


class Ended(NamedTuple):
    """One request. `error` is None for an answer, which was `right` or not. Times are monotonic."""

    began_s: float
    ended_s: float
    error: CrossgateError | None
    right: bool


class CheckedLoad:
    """`async with` runs it; leaving waits for what is in flight. Nothing is retried. No two requests send the
    same numbers, so that another one's answer is never right. The model answers x * FACTOR + 1.
    """

    def __init__(
        self,
        target: str,
        model: str,
        *,
        callers: int = 8,
        rows: int = 1,
        timeout_s: float = 30.0,
        pause_s: float = 0.0,
    ) -> None:
        self._target = target
        self._model = model
        self._callers = callers
        self._rows = rows
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._running = True
        self._numbers = itertools.count(1)
        self.ended: list[Ended] = []

    async def __aenter__(self) -> Self:
        self._client = AsyncClient(self._target, retries=0, timeout_s=self._timeout_s)
        await self._client.__aenter__()
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def _call(self) -> None:
        while self._running:
            number = next(self._numbers) % _NUMBERS
            x = np.array([[number, number + 0.25, -number, number + 0.5]] * self._rows, np.float32)
            began_s, error, right = time.monotonic(), None, False
            try:
                result = await self._client.infer(self._model, {"x": x})
                right = np.array_equal(result["y"], x * np.float32(FACTOR) + 1)
            except CrossgateError as failed:
                error = failed
            self.ended.append(Ended(began_s, time.monotonic(), error, right))
            await asyncio.sleep(self._pause_s)

    @property
    def answered(self) -> int:
        return sum(each.error is None for each in self.ended)

    def answered_since(self, at_s: float) -> int:
        """How many that were sent after that have been answered."""
        return sum(each.error is None and each.began_s > at_s for each in self.ended)

    @property
    def wrong(self) -> int:
        """How many answers were not the right ones."""
        return sum(each.error is None and not each.right for each in self.ended)

    @property
    def failures(self) -> Sequence[Ended]:
        return [each for each in self.ended if each.error is not None]

    async def answers(self, more: int, timeout_s: float = 20.0) -> None:
        """Wait for so many answers more. Raises TimeoutError."""
        wanted = self.answered + more
        await self.until(lambda: self.answered >= wanted, timeout_s)

    async def until(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait beside the load. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)

    def assert_all_right(self) -> None:
        """Every request was answered, and rightly."""
        assert self.answered > 0
        assert not self.wrong, f"{self.wrong} of {self.answered} answers are wrong"
        assert not self.failures, f"{len(self.failures)} failed, first {self.failures[0].error!r}"
