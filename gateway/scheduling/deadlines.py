"""One heap of deadlines for the whole gateway. Entries of settled items stay until their time or until they
are most of the heap; the items themselves, and with them the tensors of their calls, are not kept.
"""

from __future__ import annotations

import heapq
import weakref
from typing import TYPE_CHECKING

from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import ItemState

if TYPE_CHECKING:
    from gateway.scheduling.item import QueueItem

_COMPACT_OVER = 1024


class Deadlines:
    def __init__(self) -> None:
        self._heap: list[tuple[int, int, weakref.ref[QueueItem]]] = []  # (deadline_ns, sequence, item)
        self._compact_at = _COMPACT_OVER

    def add(self, item: QueueItem) -> None:
        if item.deadline_ns == NEVER:
            return
        heapq.heappush(self._heap, (item.deadline_ns, item.sequence, weakref.ref(item)))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if _unsettled(entry[2]) is not None]
            heapq.heapify(self._heap)
            self._compact_at = max(2 * len(self._heap), _COMPACT_OVER)

    def next_ns(self) -> int | None:
        """Return the nearest deadline of an item that is not settled."""
        heap = self._heap
        while heap and _unsettled(heap[0][2]) is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expired(self, now_ns: int) -> list[QueueItem]:
        """Remove and return the items whose deadline has passed."""
        heap, items = self._heap, []
        while heap and heap[0][0] <= now_ns:
            item = _unsettled(heapq.heappop(heap)[2])
            if item is not None:
                items.append(item)
        return items

    def __len__(self) -> int:
        return len(self._heap)


def _unsettled(reference: weakref.ref[QueueItem]) -> QueueItem | None:
    item = reference()
    return None if item is None or item.state == ItemState.SETTLED else item
