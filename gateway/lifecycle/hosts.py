"""Makes servables of what is loaded, and puts them on slots and takes them off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.lifecycle.record import InstanceState
from gateway.servable import Servable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.dataplane import Dataplane
    from gateway.lifecycle.loader import Loader
    from gateway.lifecycle.record import InstanceRecord, VersionRecord
    from gateway.lifecycle.routes import ServedModel
    from gateway.telemetry.accounts import Accounts

log = logging.getLogger(__name__)


class Hosts:
    """`withdrawn` is called with a model of which a version has been taken out of service, before those who
    wait for it are told.
    """

    def __init__(
        self,
        clock: Clock,
        dataplane: Dataplane,
        accounts: Accounts,
        loader: Loader,
        withdrawn: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._dataplane = dataplane
        self._accounts = accounts
        self._loader = loader
        self._withdrawn = withdrawn

    def complete(self, served: ServedModel, record: VersionRecord) -> None:
        """Make the servable once every instance is ready or has failed, and at least one is ready."""
        states = [instance.state for instance in record.instances.values()]
        ready = [i for i in record.instances.values() if i.state is InstanceState.READY]
        model = served.desired
        if record.servable is not None or not ready or InstanceState.LOADING in states or model is None:
            return
        if InstanceState.ABSENT in states:
            return
        first = record.loaded[ready[0].placed.slot]
        probes = [record.loaded[i.placed.slot].probed for i in ready]
        record.servable = Servable(
            model.document,
            record.version,
            model.revision,
            first.signature,
            self._accounts.open(record.model, record.version),
            batchable=all(probe.batchable for probe in probes),
            reason="; ".join(dict.fromkeys(probe.reason for probe in probes if probe.reason)),
            follows=next((probe.follows for probe in probes if probe.follows), ()),
            used_ns=self._clock.now_ns(),
        )
        record.ready_ns = record.servable.used_ns
        for instance in ready:
            self.host(record, instance)
        batching = "batchable" if record.servable.batchable else f"not batchable: {record.servable.reason}"
        log.info(
            "model %s version %s is ready (%s)",
            record.model,
            record.version,
            batching,
            extra=served.about(record),
        )

    def host(self, record: VersionRecord, instance: InstanceRecord) -> None:
        """Let batches of a servable go to a slot that has loaded it."""
        assert record.servable is not None, "only a servable is hosted"
        placed = instance.placed
        hosting = self._dataplane.host(
            record.servable, placed.slot, instance.servable_id, count=placed.count, width=placed.width
        )
        now_ns = self._clock.now_ns()
        for rows, run_ns in record.loaded[placed.slot].warmed:
            hosting.cost.observe(rows, run_ns, now_ns)
        self._dataplane.pump()

    def leave(self, record: VersionRecord, gone: InstanceRecord) -> None:
        """Take a version off a slot on which it is not to run any more."""
        if record.servable is not None:
            self._dataplane.unhost(record.servable, gone.placed.slot)
        if gone.state is InstanceState.READY:
            self._forget(gone)

    def withdraw(self, record: VersionRecord, reason: str) -> None:
        """Take a version off all its slots; its instances are absent afterwards."""
        servable = record.servable
        record.servable = None
        for slot, instance in record.instances.items():
            if servable is not None:
                self._dataplane.unhost(servable, slot)
            if instance.state is InstanceState.READY:
                instance.state = InstanceState.ABSENT
                self._forget(instance)
        self._withdrawn(record.model)
        if servable is not None:
            self._dataplane.retire(servable, reason)

    async def unload(self, served: ServedModel, record: VersionRecord) -> None:
        """Unload a version that nobody needs any more."""
        servable = record.servable
        record.servable = None
        if servable is not None:
            for slot in record.instances:
                self._dataplane.unhost(servable, slot)
            self._dataplane.retire(servable, "it was replaced")
        # what is loaded on demand keeps its account: it is the same version when it comes back
        if record.version not in served.declared() and all(
            other.version != record.version for other in served.records.values()
        ):
            self._accounts.close(record.model, record.version)
        self._loader.forget(record)
        for instance in record.instances.values():
            if instance.state is InstanceState.READY:
                await self._loader.unload(record, instance)
        log.info("model %s version %s is unloaded", record.model, record.version, extra=served.about(record))

    def _forget(self, instance: InstanceRecord) -> None:
        link = self._loader.links.get(instance.placed.slot)
        if link is not None:
            link.forget(instance.servable_id)
