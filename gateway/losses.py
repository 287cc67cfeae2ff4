"""What follows from a worker's death: which requests run again, who is to blame, and when a servable is
quarantined.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.scheduling.item import ItemState
from gateway.scheduling.suspects import MAX_RUNS, Fate, KillLedger, LostInRun, Poison, RetryBudget, fate
from gateway.settlement import servable_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.scheduling.item import QueueItem
    from gateway.scheduling.slot import Batch
    from gateway.servable import Servable
    from gateway.settlement import Settlement

log = logging.getLogger(__name__)


class Losses:
    """`quarantine` takes a servable out of service."""

    def __init__(self, quarantine: Callable[[Servable, str], None]) -> None:
        self.budget = RetryBudget()
        self._quarantine = quarantine
        self._kills: dict[Servable, KillLedger] = {}

    def lose(
        self, batch: Batch, reason: str, settlement: Settlement, now_ns: int, *, blameless: bool = False
    ) -> None:
        """Decide about each member of a batch that may have ended its worker. `blameless`: only the way to
        the worker was lost, so nobody is a suspect for it.
        """
        servable = servable_of(batch.items[0])
        ledger = self._kills.setdefault(servable, KillLedger())
        again: list[QueueItem] = []
        alone = batch.alone
        for item in batch.items:
            if item.state == ItemState.SETTLED:
                continue
            item.lost += 1
            retry = servable.policy.retry
            # the budget is only asked where nothing else decides
            budget = (blameless or not alone) and retry and item.lost < MAX_RUNS and self.budget.take()
            verdict = fate(alone=alone and not blameless, lost=item.lost, retry=retry, budget=budget)
            if verdict is Fate.RUN_AGAIN:
                settlement.chronicle.lost(batch, item, reason, now_ns)
                item.state = ItemState.WAITING
                item.batch = None
                again.append(item)
            elif verdict is Fate.CULPRIT:
                about = {
                    "model": servable.model,
                    "version": servable.version,
                    "revision": servable.revision,
                }
                log.warning("request %r is poison: %s", item.call.request_id, reason, extra=about)
                hopeless = ledger.guilty(item)
                settlement.fail([item], Poison(servable.model, reason), now_ns)
                if hopeless:
                    self._quarantine(servable, f"every request ends its worker: {reason}")
            else:
                settlement.fail([item], LostInRun(servable.model, reason, verdict.value), now_ns)
        for item in again:
            if blameless and not alone:
                servable.queues.push(item.plan.key, [item])
            else:
                servable.queues.suspect(item)
        servable.account.record_reruns(len(again))
        if not alone and not blameless and ledger.record(now_ns, again):
            self._quarantine(servable, f"its runs ended workers without one request to blame: {reason}")

    def answered(self, servable: Servable) -> None:
        """A run of this servable succeeded: it does not end every worker it gets."""
        ledger = self._kills.get(servable)
        if ledger is not None:
            ledger.proven()

    def inconclusive(self, item: QueueItem) -> None:
        """This one is over without having run again: what it took part in stays unexplained, and counts for
        nothing.
        """
        ledger = self._kills.get(servable_of(item)) if item.lost else None
        if ledger is not None:
            ledger.drop(item)

    def cleared(self, items: Sequence[QueueItem], now_ns: int) -> None:
        """These ran without ending a worker; suspects among them are innocent."""
        if not self._kills:
            return
        for item in items:
            if item.lost:
                servable = servable_of(item)
                ledger = self._kills.get(servable)
                if ledger is not None and ledger.settled(item, now_ns):
                    self._quarantine(servable, "its runs ended workers without one request to blame")

    def forget(self, servable: Servable) -> None:
        self._kills.pop(servable, None)
