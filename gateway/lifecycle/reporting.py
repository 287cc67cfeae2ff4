"""What this gateway tells the store: that it is there, and how far each model is. Only transitions are
written; live figures are the admin service's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.config import keys
from gateway.config.status import ModelReport, Presence, VersionReport
from gateway.config.store.leases import LeaseKeeper
from gateway.config.store.store import Span

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.clock import Clock
    from gateway.config.store.store import Store
    from gateway.lifecycle.catalog import Catalog
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.lifecycle.routes import ServedModel

TTL_S = 10.0
_PACE_S = 0.02  # what changes meanwhile is written together


class Reporter:
    """Writes under a lease of its own; what cannot be written now is written when it can, and
    what somebody deletes is written again. `run` ends by
    cancellation, and takes everything back.
    """

    def __init__(self, store: Store, clock: Clock, reconciler: Reconciler, catalog: Catalog) -> None:
        self._store = store
        self._clock = clock
        self._reconciler = reconciler
        self._catalog = catalog
        self._changed: set[str] = set()  # models
        self._due = asyncio.Event()
        self._reports: dict[str, ModelReport] = {}  # {model: as it was written last}
        self._keeper: LeaseKeeper | None = None

    @property
    def problem(self) -> str:
        """Why the store may not have what is reported, '' while it does."""
        return self._keeper.problem if self._keeper is not None else ""

    def changed(self, models: Collection[str] = ()) -> None:
        """Something may have changed about these models, or about this gateway."""
        self._changed.update(models)
        self._due.set()

    async def run(self, presence: Presence) -> None:
        """Report until cancelled. `presence` says who this is."""
        written: Presence | None = None
        ours = (Span.one(keys.gateway_key(presence.gateway)), keys.status_of(presence.gateway))
        async with LeaseKeeper(self._store, TTL_S, self._clock, ours) as self._keeper:
            while True:
                self._due.clear()
                changed, self._changed = self._changed, set()
                observed = self._reconciler.looked_at
                await self._write(presence.gateway, changed)
                present = msgspec.structs.replace(
                    presence, observed=observed, draining=self._catalog.draining
                )
                if present != written:  # after the statuses, which `observed` speaks of
                    await self._keeper.put({keys.gateway_key(presence.gateway): msgspec.json.encode(present)})
                    written = present
                await self._due.wait()
                await asyncio.sleep(_PACE_S)

    async def _write(self, gateway: str, models: Collection[str]) -> None:
        assert self._keeper is not None, "it runs"
        puts, deletes = {}, []
        for model in models:
            served = self._reconciler.served.get(model)
            report = model_report(served) if served is not None else None
            if report == self._reports.get(model):
                continue
            key = keys.status_key(gateway, model)
            if report is None:
                del self._reports[model]
                deletes.append(key)
            else:
                self._reports[model] = report
                puts[key] = msgspec.json.encode(report)
        if puts:
            await self._keeper.put(puts)
        if deletes:
            await self._keeper.delete(deletes)


def model_report(served: ServedModel) -> ModelReport | None:
    """Return what there is to report of a model, None where nothing of it is loaded and nothing is wrong."""
    current = served.current()
    if not current and not served.problem:
        return None
    desired = served.desired
    applied = desired is None or served.routing is desired.document
    waits: list[str] = []
    if desired is not None and not applied:
        for version in sorted(desired.document.named_versions(), key=int):
            record = current.get(version)
            if record is None or record.servable is None or record.draining:
                reason = record.why_not_ready if record is not None else "it does not exist"
                waits.append(f"version {version}: {reason or 'it is unloading'}")
    return ModelReport(
        served.model,
        desired.revision if desired is not None else 0,
        applied=served.routing_revision if served.routing is not None else 0,
        waits=tuple(waits),
        problem=served.problem,
        versions={
            version: VersionReport(record.state.value, record.why_not_ready)
            for version, record in sorted(current.items(), key=lambda item: int(item[0]))
        },
    )
