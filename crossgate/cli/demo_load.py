"""The demonstration's load: concurrent callers that send held-out digits and check every answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from crossgate import AsyncClient, CrossgateError
from crossgate.cli.demo_models import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from crossgate.cli.demo_models import DigitsData


class DigitsLoad:
    """Runs until `stop`. Nothing is retried: a request that fails is counted as failed.

    `expected` is {version: the original model's prediction for each digit}.
    """

    def __init__(
        self, address: str, data: DigitsData, expected: Mapping[str, npt.NDArray[np.int64]], callers: int
    ) -> None:
        self._address = address
        self._data = data
        self._expected = expected
        self._callers = callers
        self._digits = itertools.cycle(range(len(data.labels)))
        self._running = True
        self.served: Counter[str] = Counter()  # {version: requests}
        self.right: Counter[str] = Counter()  # {version: predictions equal to the label}
        self.differing = 0  # predictions that are not the original model's
        self.failures: list[str] = []
        self.latencies_s: list[float] = []

    def stop(self) -> None:
        self._running = False

    async def run(self) -> None:
        async with (
            AsyncClient(self._address, retries=0, timeout_s=30.0) as client,
            asyncio.TaskGroup() as callers,
        ):
            for _ in range(self._callers):
                callers.create_task(self._call(client))

    async def _call(self, client: AsyncClient) -> None:
        while self._running:
            i = next(self._digits)
            began = time.perf_counter()
            try:
                result = await client.infer(MODEL, {"image": self._data.images[i : i + 1]})
            except CrossgateError as error:
                self.failures.append(str(error))
                continue
            self.latencies_s.append(time.perf_counter() - began)
            prediction = int(np.argmax(result["probabilities"][0]))
            self.served[result.version] += 1
            self.right[result.version] += prediction == self._data.labels[i]
            self.differing += prediction != self._expected[result.version][i]
