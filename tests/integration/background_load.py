"""Callers that run beside a test and remember what became of every request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from crossgate import CrossgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from live_gateway import LiveGateway

    from crossgate import AsyncClient, InferResult


class BackgroundLoad:
    """Nothing is retried. `async with` runs it; leaving waits for what is in flight.

    `check` is called with the result and the value sent, and raises AssertionError where they do not fit.
    """

    def __init__(
        self,
        gateway: LiveGateway,
        model: str,
        *,
        callers: int = 8,
        name: str = "INPUT0",
        shape: tuple[int, ...] = (1, 4),
        check: Callable[[InferResult, float], None] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._gateway = gateway
        self._model = model
        self._callers = callers
        self._name = name
        self._shape = shape
        self._check = check or echoed
        self._settings = settings or {}
        self._running = True
        self.answered = 0
        self.versions: Counter[str] = Counter()  # {version: requests}
        self.failures: list[str] = []

    async def __aenter__(self) -> Self:
        self._client = self._gateway.async_client(**self._settings)
        await self._client.__aenter__()
        self._tasks = [
            asyncio.create_task(self._call(self._client, caller)) for caller in range(self._callers)
        ]
        return self

    async def _call(self, client: AsyncClient, caller: int) -> None:
        sent = 0
        while self._running:
            value = float(caller + sent * self._callers % 1000)
            sent += 1
            array = np.full(self._shape, value, np.float32)
            try:
                result = await client.infer(self._model, {self._name: array})
            except CrossgateError as error:
                self.failures.append(str(error))
                continue
            self._check(result, value)
            self.answered += 1
            self.versions[result.version] += 1

    def stop(self) -> None:
        self._running = False

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await asyncio.gather(*self._tasks)
        await self._client.close()


def echoed(result: InferResult, value: float) -> None:
    """What the loopback runtime answers."""
    assert np.all(result["OUTPUT0"] == value), f"{value} was sent, {result['OUTPUT0']} came back"
