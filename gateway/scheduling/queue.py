"""The queues of one servable: one for each batch key, so that different shapes never block each other, under
one bound.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from gateway.errors import Exhausted

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from gateway.scheduling.item import QueueItem
    from gateway.scheduling.slot import Hosting


class QueueFull(Exhausted):
    """The model's queue holds `max_queue_size` requests."""

    retry_after_ms = 100

    def __init__(self, model: str, max_queue_size: int) -> None:
        super().__init__(f"model {model}: the queue is full ({max_queue_size} requests)")


class RequestQueue:
    """Requests that may share a batch, by (priority, due time, arrival). `alone` marks a queue of
    suspects.
    """

    __slots__ = ("_order", "alone", "even", "items", "key")

    def __init__(self, key: Hashable, *, alone: bool = False) -> None:
        self.key = key
        self.alone = alone
        self.items: list[QueueItem] = []
        self.even = 0  # the rows of each item while all have the same and one priority, else 0
        self._order: list[tuple[int, int, int]] = []  # (priority, due_ns, sequence) of each item

    def push(self, items: Sequence[QueueItem]) -> None:
        """Add items, each to where its order puts it."""
        order, queued = self._order, self.items
        if not order:
            self.even = items[0].rows
        last = order[-1] if order else (items[0].priority, 0, 0)
        for item in items:
            item.queue = self
            here = (item.priority, item.due_ns, item.sequence)
            if item.rows != self.even or here[0] != last[0]:
                self.even = 0
            if here >= last:
                order.append(here)
                queued.append(item)
                last = here
            else:
                at = bisect.bisect(order, here)
                order.insert(at, here)
                queued.insert(at, item)

    def remove(self, item: QueueItem) -> None:
        at = bisect.bisect_left(self._order, (item.priority, item.due_ns, item.sequence))
        del self._order[at], self.items[at]

    def take(self, picks: Sequence[int]) -> list[QueueItem]:
        """Remove and return the items at these ascending positions."""
        if picks[-1] == len(picks) - 1:
            taken = self.items[: len(picks)]
            del self.items[: len(picks)], self._order[: len(picks)]
            return taken
        taken = [self.items[i] for i in picks]
        for i in reversed(picks):
            del self.items[i], self._order[i]
        return taken


class ServableQueues:
    """All queues of one servable. Holds at most `max_size` requests; what was taken and comes back is never
    refused.
    """

    def __init__(self, model: str, max_size: int) -> None:
        self._model = model
        self.max_size = max_size
        self.size = 0
        self.by_key: dict[Hashable, RequestQueue] = {}  # no empty ones
        self.hostings: list[Hosting] = []  # the slots that serve these queues now
        self.suspects = RequestQueue("suspects", alone=True)

    @property
    def room(self) -> int:
        """How many more new requests may be added."""
        return max(self.max_size - self.size, 0)

    def full(self) -> QueueFull:
        """Return what a request is told for which there is no room."""
        return QueueFull(self._model, self.max_size)

    def push(self, key: Hashable, items: Sequence[QueueItem]) -> None:
        """Add requests: new ones as far as there is room, what was taken and comes back in any case."""
        queue = self.by_key.get(key)
        if queue is None:
            queue = self.by_key[key] = RequestQueue(key)
        queue.push(items)
        self.size += len(items)

    def suspect(self, item: QueueItem) -> None:
        """Add a request whose batch was lost: it runs alone."""
        self.size += 1
        self.suspects.push([item])

    def take(self, queue: RequestQueue, picks: Sequence[int]) -> list[QueueItem]:
        items = queue.take(picks)
        self._left(queue, len(items))
        return items

    def remove(self, item: QueueItem) -> None:
        """Remove a waiting request that expired or was cancelled."""
        queue = item.queue
        assert queue is not None, "a waiting item has a queue"
        queue.remove(item)
        self._left(queue, 1)

    def _left(self, queue: RequestQueue, count: int) -> None:
        self.size -= count
        if not queue.items and not queue.alone:
            del self.by_key[queue.key]

    def nonempty(self) -> list[RequestQueue]:
        queues = list(self.by_key.values())
        if self.suspects.items:
            queues.append(self.suspects)
        return queues

    def drain(self) -> list[QueueItem]:
        """Remove and return everything."""
        items = [item for queue in self.nonempty() for item in queue.items]
        self.by_key.clear()
        self.suspects.items.clear()
        self.suspects = RequestQueue("suspects", alone=True)
        self.size = 0
        return items
