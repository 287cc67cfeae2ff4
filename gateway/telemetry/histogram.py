"""Counts of values in fixed buckets, cheap enough for every request."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_US = 1_000
_MS = 1_000_000
_S = 1_000_000_000

LATENCY_BOUNDS_NS: Final = (
    *(100 * _US, 250 * _US, 500 * _US),
    *(1 * _MS, 2_500 * _US, 5 * _MS, 10 * _MS, 25 * _MS, 50 * _MS, 100 * _MS, 250 * _MS, 500 * _MS),
    *(1 * _S, 2_500 * _MS, 5 * _S, 10 * _S),
)
BATCH_SIZE_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BURST_SIZE_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Buckets in the sense of Prometheus: a value belongs to the first bound that is not below it.

    Values are integers in one unit, the bounds' own; durations are nanoseconds here and become seconds
    when they are exposed, because adding integers is exact and needs no division per request. Values
    are never negative.
    """

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[int]) -> None:
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(f"bounds must be there and rise, got {tuple(bounds)}")
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0

    def observe(self, value: int) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_times(self, value: int, times: int) -> None:
        """Observe `value` so many times at once."""
        self._counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_many(self, values: Sequence[int]) -> None:
        bounds, counts = self.bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def bucket_counts(self) -> tuple[int, ...]:
        """One count per bound and a last one for values above all bounds; not cumulative."""
        return tuple(self._counts)
