"""Ends overrides in time: what the elected gateway does for all. The end of one stands in the model's history
like any other change. Where no gateway leads, the lease of the override ends it, a little later.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.config import keys
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.override import MARGIN_S
from gateway.config.refusal import ChangeRefused
from gateway.config.store.store import LeaseGone
from gateway.config.transaction import Author

if TYPE_CHECKING:
    from gateway.config.store.election import FencedStore
    from gateway.config.store.store import Change

log = logging.getLogger(__name__)

_SOON_S = 0.2  # how late an override may end


class Expiries:
    """`gateway` is who does it, for the history."""

    def __init__(self, gateway: str) -> None:
        self._author = Author(f"gateway {gateway}", "its time was over")

    async def run(self, store: FencedStore) -> None:
        """End overrides while this gateway leads. Raises StoreError."""
        ledger = Ledger(store)
        leases: dict[str, int] = {}  # {key of an override: its lease}
        async with aclosing(store.watch(keys.OVERRIDES)) as watch:
            heard = asyncio.ensure_future(anext(watch))
            try:
                while True:
                    wait_s = await self._end_due(store, ledger, leases)
                    done, _ = await asyncio.wait((heard,), timeout=wait_s)
                    if done:
                        _take(leases, heard.result())
                        heard = asyncio.ensure_future(anext(watch))
            finally:
                heard.cancel()
                await asyncio.gather(heard, return_exceptions=True)

    async def _end_due(self, store: FencedStore, ledger: Ledger, leases: dict[str, int]) -> float | None:
        """End what is over; return how long until the next one is, None without any."""
        wait_s: float | None = None
        for key, lease in list(leases.items()):
            try:
                left_s = await store.remaining_s(lease) - MARGIN_S
            except LeaseGone:
                del leases[key]
                continue
            if left_s <= _SOON_S:
                await self._end(ledger, key)
                del leases[key]
            else:
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
        return wait_s

    async def _end(self, ledger: Ledger, key: str) -> None:
        model, id_ = keys.named_by(key, keys.OVERRIDES) or ("", "")
        try:
            await ledger.end_overrides(model_name(model), [id_], self._author, "expiry")
        except ChangeRefused as error:  # somebody has ended it
            log.info("override %s: %s", key, error)
        else:
            log.info("override %s is over", key)


def _take(leases: dict[str, int], change: Change) -> None:
    if change.resync:
        leases.clear()
    for key in change.deletes:
        leases.pop(key, None)
    for entry in change.puts:
        names = keys.named_by(entry.key, keys.OVERRIDES)
        if names is not None and len(names) == 2 and entry.lease:
            leases[entry.key] = entry.lease
