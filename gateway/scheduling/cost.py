"""What a run costs on one slot, learned from the runs themselves: a fixed part and a part per row.

An exponentially weighted least-squares fit of `run_ns = fixed + per_row * rows`, the idea of Clipper and
BentoML's dispatcher; the mean absolute error is added to predictions, so that they lean towards the tail.
`floor_ns` is the fastest recent run: what cannot finish even in that time is not worth starting. It decays,
so that one slow phase is not remembered for ever.
"""

from __future__ import annotations

from typing import NamedTuple

_DECAY = 0.97
_FLOOR_GROWTH = 1.02
_FLOOR_HALF_LIFE_NS = 10_000_000_000


class Cost(NamedTuple):
    """A frozen cost model. All zero while nothing has been measured: then nothing is predicted."""

    fixed_ns: float = 0.0
    per_row_ns: float = 0.0
    error_ns: float = 0.0
    floor_ns: float = 0.0

    def predict_ns(self, rows: int) -> float:
        """How long a run will take, leaning towards the tail."""
        return self.fixed_ns + self.per_row_ns * rows + self.error_ns

    def at_least_ns(self, rows: int) -> float:
        """How long a run will take, leaning towards the quick ones."""
        return max(self.fixed_ns + self.per_row_ns * rows - self.error_ns, 0.0)


UNKNOWN = Cost()


class CostModel:
    """The learning side. `observe` takes a few multiplications; `snapshot` is cached until the next
    observation.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._time = self._rows2 = self._rows_time = 0.0
        self._error = self._floor = 0.0
        self._floor_at_ns = 0
        self._cost: Cost = UNKNOWN

    def observe(self, rows: int, run_ns: int, now_ns: int) -> None:
        if self._weight:
            error = abs(run_ns - self._cost.fixed_ns - self._cost.per_row_ns * rows)
            self._error += 0.1 * (error - self._error)
        self._weight = self._weight * _DECAY + 1
        self._rows = self._rows * _DECAY + rows
        self._time = self._time * _DECAY + run_ns
        self._rows2 = self._rows2 * _DECAY + rows * rows
        self._rows_time = self._rows_time * _DECAY + rows * run_ns
        self._floor = min(self._floor * _FLOOR_GROWTH, run_ns) if self._floor else float(run_ns)
        self._floor_at_ns = now_ns
        self._cost = self._fit()

    def _fit(self) -> Cost:
        mean_rows, mean_time = self._rows / self._weight, self._time / self._weight
        variance = self._rows2 / self._weight - mean_rows * mean_rows
        if variance > 1e-6 * max(mean_rows * mean_rows, 1):
            per_row = (self._rows_time / self._weight - mean_rows * mean_time) / variance
            per_row = min(max(per_row, 0.0), mean_time / mean_rows)
        else:
            per_row = mean_time / mean_rows / 2  # one batch size seen: half of it may be fixed, half grow
        return Cost(max(mean_time - per_row * mean_rows, 0.0), per_row, self._error, self._floor)

    def snapshot(self, now_ns: int) -> Cost:
        idle_ns = now_ns - self._floor_at_ns
        if idle_ns > _FLOOR_HALF_LIFE_NS and self._floor:
            self._floor *= 0.5 ** (idle_ns / _FLOOR_HALF_LIFE_NS)
            self._floor_at_ns = now_ns
            self._cost = self._cost._replace(floor_ns=self._floor)
        return self._cost
