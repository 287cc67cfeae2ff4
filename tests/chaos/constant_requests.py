"""Requests to every model of a gateway, all the time, and what is wrong with their answers."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Self

import numpy as np

from crossgate import CrossgateError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from live_gateway import LiveGateway

PAUSE_S = 0.015


class ConstantRequests:
    """`async with` sends them, of one life of a gateway. Nothing is retried. A model of `passing` may not be
    there; the others answer always. A version answers its number times what it was sent, and one more.
    """

    def __init__(self, gateway: LiveGateway, steady: Sequence[str], passing: Sequence[str]) -> None:
        self.answered = 0
        self.not_there = 0  # answers for models that come and go
        self.flaws: list[str] = []
        self.revisions: defaultdict[str, list[int]] = defaultdict(list)  # {model: each as it was first seen}
        self._gateway = gateway
        self._steady = steady
        self._passing = passing
        self._running = True

    async def __aenter__(self) -> Self:
        self._client = self._gateway.async_client()
        await self._client.__aenter__()
        self._tasks = [
            asyncio.create_task(self._call(model), name=f"requests to {model}")
            for model in (*self._steady, *self._passing)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def _call(self, model: str) -> None:
        sent = 0
        while self._running:
            sent += 1
            value = float(sent % 100)
            try:
                result = await self._client.infer(model, {"x": np.full((1, 4), value, np.float32)})
            except (NotFound, Unavailable) as error:
                if model in self._passing:
                    self.not_there += 1
                else:
                    self.flaws.append(f"{model}: {error}")
            except CrossgateError as error:
                self.flaws.append(f"{model}: {error}")
            else:
                self.answered += 1
                if not np.all(result["y"] == value * int(result.version) + 1):
                    self.flaws.append(f"{model}: an answer is not that of version {result.version}")
                self._saw(model, result.revision or 0)
            await asyncio.sleep(PAUSE_S)

    def _saw(self, model: str, revision: int) -> None:
        seen = self.revisions[model]
        if not seen or revision > seen[-1]:
            seen.append(revision)
        elif revision < seen[-1]:
            self.flaws.append(f"{model}: revision {revision} answers after {seen[-1]}")

    @property
    def revisions_seen(self) -> int:
        return sum(map(len, self.revisions.values()))

    def told(self, most: int = 5) -> list[str]:
        """The flaws, each once."""
        counted = Counter(self.flaws)
        return [f"{count} x {flaw}" for flaw, count in counted.most_common(most)]
