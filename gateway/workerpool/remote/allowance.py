"""How much of inputs may be on their way to a worker elsewhere: the same rule as for an arena."""

from __future__ import annotations

from wire.arena import ArenaFull, RegionTooLarge


class Allowance:
    """All batches of at most `segment_bytes` together take as much as that, larger ones `budget_bytes`."""

    def __init__(self, segment_bytes: int, budget_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._budget_bytes = budget_bytes
        self._taken: dict[int, int] = {}  # {batch id: size}
        self._small_bytes = 0
        self.used_bytes = 0

    def __contains__(self, batch: int) -> bool:
        return batch in self._taken

    def take(self, batch: int, size_bytes: int) -> None:
        """Count a batch, which must not be counted yet.

        Raises:
            ArenaFull: not now.
            RegionTooLarge: never.
        """
        small = size_bytes <= self._segment_bytes
        if small and self._small_bytes + size_bytes > self._segment_bytes:
            raise ArenaFull
        if not small:
            if size_bytes > self._budget_bytes:
                raise RegionTooLarge(size_bytes, self._budget_bytes)
            if self.used_bytes - self._small_bytes + size_bytes > self._budget_bytes:
                raise ArenaFull
        self._taken[batch] = size_bytes
        self.used_bytes += size_bytes
        self._small_bytes += size_bytes if small else 0

    def give_back(self, batch: int) -> bool:
        """The batch is over; false for one that is not counted."""
        size_bytes = self._taken.pop(batch, None)
        if size_bytes is None:
            return False
        self.used_bytes -= size_bytes
        self._small_bytes -= size_bytes if size_bytes <= self._segment_bytes else 0
        return True

    def clear(self) -> None:
        self._taken.clear()
        self._small_bytes = self.used_bytes = 0
