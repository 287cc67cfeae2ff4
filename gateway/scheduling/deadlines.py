"""One heap of deadlines for the whole gateway. Settled items stay until their time or until they are most of
the heap.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import ItemState

if TYPE_CHECKING:
    from gateway.scheduling.item import QueueItem

_COMPACT_OVER = 1024


class Deadlines:
    def __init__(self) -> None:
        self._heap: list[tuple[int, int, QueueItem]] = []  # (deadline_ns, sequence, item)
        self._compact_at = _COMPACT_OVER

    def add(self, item: QueueItem) -> None:
        if item.deadline_ns == NEVER:
            return
        heapq.heappush(self._heap, (item.deadline_ns, item.sequence, item))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if entry[2].state != ItemState.SETTLED]
            heapq.heapify(self._heap)
            self._compact_at = max(2 * len(self._heap), _COMPACT_OVER)

    def next_ns(self) -> int | None:
        """Return the nearest deadline of an item that is not settled."""
        heap = self._heap
        while heap and heap[0][2].state == ItemState.SETTLED:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expired(self, now_ns: int) -> list[QueueItem]:
        """Remove and return the items whose deadline has passed."""
        heap, items = self._heap, []
        while heap and (heap[0][0] <= now_ns or heap[0][2].state == ItemState.SETTLED):
            item = heapq.heappop(heap)[2]
            if item.state != ItemState.SETTLED:
                items.append(item)
        return items

    def __len__(self) -> int:
        return len(self._heap)
