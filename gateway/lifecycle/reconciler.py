"""The reconciler: observe, ask the policy for what is due, do it, repeat.

One task owns all state here; loads and unloads run in tasks of the same group and report back through it. A
version takes traffic only after every one of its instances has been loaded, probed and warmed up, or has
failed; the table is swapped as a whole.

What a pass costs grows with the models that something happened to, not with those that are declared: each
pass looks at the models that were touched and at those whose time has come, and gives way to requests in
between.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from gateway.lifecycle import policy
from gateway.lifecycle.desired import Desired, DesiredModel
from gateway.lifecycle.loader import LinkGone, Loader, LoadFailed
from gateway.lifecycle.loading import spec_key
from gateway.lifecycle.memory import Resident, Stay, make_room
from gateway.lifecycle.placement import PlacementFailed, place
from gateway.lifecycle.record import InstanceRecord, InstanceState, VersionRecord, VersionState
from gateway.lifecycle.routes import ServedModel, build_route
from gateway.routing.table import ModelRoute, RouteTable
from gateway.scheduling.decision import NEVER
from gateway.servable import Servable
from gateway.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from gateway.clock import Clock
    from gateway.config.document import ModelDocument
    from gateway.dataplane import Dataplane
    from gateway.lifecycle.loading import LoadedInstance
    from gateway.lifecycle.placement import Placed
    from gateway.telemetry.accounts import Accounts
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.seam import Link

log = logging.getLogger(__name__)

DRAIN_LIMIT_NS = 60_000_000_000
QUARANTINE_NS = 30_000_000_000
ROOM_NS = 50_000_000  # how soon to look again for room that others hold
TURN_NS = 1_000_000_000  # how long what is busy stays at least, where others wait for its room
# A version that served before keeps its requests waiting for so many loads in a row that lose their worker.
LOST_LOADS = 3


class Reconciler:
    """`on_change` is called after every change of what is served, with the models that it may be about."""

    def __init__(
        self,
        clock: Clock,
        pool: Pool,
        dataplane: Dataplane,
        accounts: Accounts,
        runtimes: Collection[str],
        on_change: Callable[[Collection[str]], None],
        *,
        node: str,
    ) -> None:
        self.desired = Desired()
        self.served: dict[str, ServedModel] = {}
        self.notable: set[str] = set()  # models with something loaded, under way, wrong or required
        self.applied_revision = 0  # the last at which every model's routing was its document's
        self.looked_at = 0  # the revision whose changes are all in force, or stand in their models' states
        self._observed_ns: int | None = None
        self._clock = clock
        self._pool = pool
        self._dataplane = dataplane
        self._accounts = accounts
        self._runtimes = runtimes
        self._on_change = on_change
        self._node = node
        self._loader = Loader(clock, pool)
        self._routes: dict[str, ModelRoute] = {}
        self._unapplied: set[str] = set()  # models whose routing is not their document's
        self._touched: set[str] = set()  # models to look at in the next pass
        self._changed: list[tuple[ServedModel, DesiredModel]] = []  # whose policy is to change with the table
        self._wakes: dict[str, int] = {}  # {model: when to look at it}, only where there is a time
        self._dirty = asyncio.Event()
        self._has_snapshot = False
        self.observed = asyncio.Event()  # the first snapshot has been looked at

    # What happens outside.

    def observe(self, desired: Desired) -> None:
        """Take a new snapshot of desired state."""
        before, self.desired = self.desired, desired
        self._observed_ns = self._clock.now_ns()
        changed = desired.changed
        if changed is None:
            changed = frozenset(self.served) | desired.models.keys()
        for model in before.problems.keys() | desired.problems.keys():
            problem = desired.problems.get(model, "")
            if problem and problem != before.problems.get(model):
                log.error(
                    "model %s: its document is not valid, the last good one, if any, stays: %s",
                    model,
                    problem,
                    extra={"model": model, "revision": desired.revision},
                )
            if problem != before.problems.get(model, ""):
                changed |= {model}
        self._has_snapshot = True
        self._touch(changed)

    def demand(self, model: str, version: str) -> None:
        """Somebody waits for a version that is loaded on demand."""
        served = self.served.get(model)
        if served is not None and version not in served.awake:
            served.awake |= {version}
            self._touch((model,))

    def worker_up(self, slot: str, link: Link) -> None:
        self._loader.links[slot] = link
        self._touch(self._models_on(slot))

    def worker_down(self, slot: str, reason: str) -> None:
        """Everything on this slot is absent again. Loads that were under way see the link's end
        themselves.
        """
        self._loader.links.pop(slot, None)
        models = self._models_on(slot)
        for record in self._records(models):
            instance = record.instances.get(slot)
            if instance is not None and instance.state is InstanceState.READY:
                instance.state = InstanceState.ABSENT
                instance.reason = reason
        self._touch(models)

    def slots_changed(self) -> None:
        """The pool has other slots than before: everything is placed anew."""
        for record in self._records(self.notable):
            model = self.served[record.model].desired
            if record.fetch in (InstanceState.ABSENT, InstanceState.FAILED) and model is not None:
                self._skip_fetch(model.document, record)
            if record.fetch is InstanceState.READY:
                self._place(record)
        self._touch(self.notable)

    def quarantine(self, servable: Servable, reason: str) -> None:
        """Take a version out of service that keeps ending workers, and try it again later."""
        for record in self._records((servable.model,)):
            if record.servable is servable:
                log.error(
                    "model %s version %s is quarantined: %s",
                    record.model,
                    record.version,
                    reason,
                    extra=self._about(record),
                )
                record.reason = f"quarantined: {reason}"
                record.quarantined_until_ns = self._clock.now_ns() + QUARANTINE_NS
                self._withdraw(record, record.reason)
        self._touch((servable.model,))

    def _touch(self, models: Iterable[str]) -> None:
        self._touched.update(models)
        self._dirty.set()

    def _records(self, models: Iterable[str]) -> list[VersionRecord]:
        found = [served for name in models if (served := self.served.get(name)) is not None]
        return [record for served in found for record in served.records.values()]

    def _about(self, record: VersionRecord) -> dict[str, object]:
        """Return what a log line says of a version beside its text."""
        served = self.served.get(record.model)
        desired = served.desired if served is not None else None
        return {
            "model": record.model,
            "version": record.version,
            "revision": desired.revision if desired is not None else 0,
        }

    def _models_on(self, slot: str) -> set[str]:
        return {record.model for record in self._records(self.notable) if slot in record.instances}

    # A pass.

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wait()
                await self._reconcile(tasks)

    async def _wait(self) -> None:
        wake_ns = min(self._wakes.values(), default=NEVER)
        timeout_s = None if wake_ns == NEVER else max(wake_ns - self._clock.now_ns(), 0) / 1e9
        try:
            async with asyncio.timeout(timeout_s):
                await self._dirty.wait()
        except TimeoutError:
            pass
        self._dirty.clear()

    async def _reconcile(self, tasks: asyncio.TaskGroup) -> None:
        now_ns = self._clock.now_ns()
        turn = Turn()
        complete = self._has_snapshot
        desired = self.desired  # one snapshot for the whole pass: its changes are one swap of the table
        models = self._touched | {model for model, at_ns in self._wakes.items() if at_ns <= now_ns}
        self._touched = set()
        due: list[tuple[ServedModel, policy.Action]] = []
        for name in models:
            due += self._consider(name, desired, now_ns)
            await turn.give_way()
        for served, action in sorted(due, key=_unproven):
            self._act(tasks, served, action, now_ns)
        for name in models:
            self._refresh(name, desired)
            await turn.give_way()
        if complete:
            self.observed.set()
            self.looked_at = desired.revision
        # with the table, so that an answer is of one revision
        for served, model in self._changed:
            for record in served.records.values():
                if record.servable is not None:
                    record.servable.apply(model.document, model.revision)
        self._changed.clear()
        self._publish(models, desired)
        self._dataplane.wake_parked()

    def _consider(self, name: str, desired: Desired, now_ns: int) -> list[tuple[ServedModel, policy.Action]]:
        """Bring a model up to its document and return what is due."""
        self._wakes.pop(name, None)
        model = desired.models.get(name)
        served = self.served.get(name)
        if served is None:
            if model is None and name not in desired.problems:
                return []
            served = self.served[name] = ServedModel(name)
        served.problem = desired.problems.get(name, "")
        if model is None:
            served.desired = None
        else:
            self._adopt(served, model)
            self._rest(served, now_ns)
        return [(served, action) for action in policy.next_actions(now_ns, self._view(served))]

    def _adopt(self, served: ServedModel, model: DesiredModel) -> None:
        """Bring a model's records up to its document: new versions appear, policy applies at once."""
        document = model.document
        if served.desired is not model:
            served.desired = model
            self._changed.append((served, model))
        if not served.on_demand:
            served.awake = frozenset()
        served.wanted = {}
        for version in _wanted(served, model):
            source = model.versions[version]
            key = spec_key(document, source)
            served.wanted[version] = key
            known = served.records.get(key)
            if known is not None:
                # it may be wanted again before it was gone
                known.draining = known.draining and known.leaving
                continue
            record = served.records[key] = VersionRecord(served.model, version, key, source)
            self.notable.add(served.model)  # at once: what is loaded in this pass takes room in it
            if source.source:
                record.fetch = InstanceState.ABSENT
                self._skip_fetch(document, record)
            else:
                self._place(record)

    def _skip_fetch(self, document: ModelDocument, record: VersionRecord) -> None:
        """Where a version runs only on slots that fetch for themselves, nothing is fetched here."""
        if not document.instances and not all(slot.fetches for slot in self._pool.slots.values()):
            return
        try:
            placed = self._placed(document, record)
        except PlacementFailed:
            return
        if all(self._pool.slots[each.slot].fetches for each in placed):
            record.fetch = InstanceState.READY
            record.reason = ""
            self._place(record)

    def _rest(self, served: ServedModel, now_ns: int) -> None:
        """Let go what is loaded on demand and nobody has asked for."""
        document = served.desired.document if served.desired is not None else None
        if document is None or not served.on_demand or document.load.idle_unload_s is None:
            return
        idle_ns = document.load.idle_unload_s * 1_000_000_000
        for record in served.records.values():
            servable = record.servable
            if servable is None or record.leaving or record.draining:
                continue
            until_ns = servable.used_ns + idle_ns
            if until_ns > now_ns or servable.busy:
                self._wake(served.model, max(until_ns, now_ns + ROOM_NS))
            else:
                log.info(
                    "model %s version %s was not asked for",
                    record.model,
                    record.version,
                    extra=self._about(record),
                )
                self._dismiss(served, record)

    def _dismiss(self, served: ServedModel, record: VersionRecord) -> None:
        record.leaving = True
        served.awake -= {record.version}
        served.wanted.pop(record.version, None)

    def _wake(self, model: str, at_ns: int) -> None:
        self._wakes[model] = min(self._wakes.get(model, NEVER), at_ns)

    def _act(self, tasks: asyncio.TaskGroup, served: ServedModel, action: policy.Action, now_ns: int) -> None:
        match action:
            case policy.StartSlot(slot):
                self._pool.start(slot)
            case policy.Fetch(key):
                record = served.records[key]
                record.fetch = InstanceState.LOADING
                tasks.create_task(self._fetch(served, record), name=f"fetch {record.model}/{record.version}")
            case policy.LoadInstance(key, slot):
                record = served.records[key]
                if slot not in record.instances:  # it went while this pass gave way
                    self._touch((served.model,))
                    return
                record.quarantined_until_ns = 0
                if record.reason.startswith("quarantined"):
                    record.reason = ""
                if self._has_room(record, slot, now_ns):
                    record.instances[slot].state = InstanceState.LOADING
                    tasks.create_task(
                        self._load(served, record, slot), name=f"load {record.model}/{record.version}"
                    )
            case policy.Drain(key):
                record = served.records[key]
                record.draining = True
                record.drain_until_ns = now_ns + DRAIN_LIMIT_NS
                log.info(
                    "model %s version %s drains", record.model, record.version, extra=self._about(record)
                )
                self._wake(served.model, now_ns)
            case policy.Forget(key):
                tasks.create_task(
                    self._forget(served, served.records.pop(key)), name=f"unload {served.model}"
                )
            case policy.WakeAt(at_ns):
                self._wake(served.model, at_ns)

    # Room.

    def _has_room(self, record: VersionRecord, slot: str, now_ns: int) -> bool:
        """Return whether a version may be loaded on a slot now. If not, room is made for it, or it has
        failed.
        """
        there = self._pool.slots.get(slot)
        budget = there.memory_bytes if there is not None else None
        if budget is None:
            return True
        instance = record.instances[slot]
        residents = self._residents(slot, instance, now_ns)
        room = make_room(_weight(record, slot), budget, [resident for resident, _, _ in residents])
        if room.fits:
            instance.no_room_ns = NEVER
            return True
        instance.no_room_ns = min(instance.no_room_ns, now_ns)
        instance.reason = "it waits for memory on its slot"
        if room.reason:
            instance.no_room_ns = NEVER
            failure = self._loader.refused(record, slot, room.reason)
            self._failed(record, instance, failure)
        for resident, served, other in residents:
            if resident.key in room.evict:
                log.info(
                    "model %s version %s makes room on %s for model %s version %s",
                    other.model,
                    other.version,
                    slot,
                    record.model,
                    record.version,
                    extra=self._about(record),
                )
                self._dismiss(served, other)
                self._touch((other.model,))
        self._wake(record.model, now_ns + ROOM_NS)
        return False

    def _residents(
        self, slot: str, waiting: InstanceRecord, now_ns: int
    ) -> list[tuple[Resident, ServedModel, VersionRecord]]:
        """Return what takes memory on a slot, or is about to, or has waited for longer than `waiting`. What
        never stops being busy had its turn once another has waited for as long: both are served, and at least
        half of the time nothing is loaded.
        """
        found = []
        waits_ns = max(now_ns - waiting.no_room_ns, 0)
        for name in self.notable:
            served = self.served[name]
            for record in served.records.values():
                instance = record.instances.get(slot)
                if instance is None or instance is waiting:
                    continue
                is_there = instance.state in (InstanceState.LOADING, InstanceState.READY)
                if not is_there and instance.no_room_ns >= waiting.no_room_ns:
                    continue
                servable = record.servable
                if not is_there or record.leaving or record.draining or served.desired is None:
                    stay = Stay.BUSY
                elif not served.on_demand:
                    stay = Stay.FIXED
                elif (
                    servable is None
                    or not self._is_published(record)
                    or (servable.busy and min(waits_ns, now_ns - record.ready_ns) < _turn_ns(record))
                ):
                    stay = Stay.BUSY
                else:
                    stay = Stay.IDLE
                used_ns = servable.used_ns if servable is not None else 0
                found.append((Resident(record.key, _weight(record, slot), used_ns, stay), served, record))
        return found

    def _is_published(self, record: VersionRecord) -> bool:
        """Whether those who waited for a version had it."""
        route = self._routes.get(record.model)
        return route is not None and route.ready.get(record.version) is record.servable

    # What takes time.

    async def _fetch(self, served: ServedModel, record: VersionRecord) -> None:
        try:
            fetched = await self._loader.fetch(record)
        except LoadFailed as error:
            record.fetch = InstanceState.FAILED
            record.fetch_retry_ns = error.retry_ns
            record.reason = str(error)
            log.error(
                "model %s version %s cannot be fetched: %s",
                record.model,
                record.version,
                record.reason,
                extra=self._about(record),
            )
        else:
            record.fetch = InstanceState.READY
            record.reason = ""
            record.size_bytes = fetched.size_bytes
            record.fetched(fetched.path, fetched.fingerprint)
            self._place(record)
        self._touch((served.model,))

    async def _load(self, served: ServedModel, record: VersionRecord, slot: str) -> None:
        instance, model = record.instances[slot], served.desired
        began_ns = self._clock.now_ns()
        try:
            if model is None:
                raise LinkGone
            loaded = await self._loader.load(model.document, record, instance)
        except LinkGone:
            instance.state = InstanceState.ABSENT
        except LoadFailed as error:
            self._failed(record, instance, error)
        else:
            record.load_ns = self._clock.now_ns() - began_ns
            self._loaded(record, instance, loaded)
        self._touch((served.model,))

    def _failed(self, record: VersionRecord, instance: InstanceRecord, error: LoadFailed) -> None:
        instance.state = InstanceState.FAILED
        instance.reason = str(error)
        instance.retry_ns = error.retry_ns
        log.error(
            "model %s version %s failed to load on %s: %s",
            record.model,
            record.version,
            instance.placed.slot,
            instance.reason,
            extra=self._about(record),
        )
        patient = instance.hopeful = error.lost and error.failures < LOST_LOADS
        if not patient and all(each.state is InstanceState.FAILED for each in record.instances.values()):
            self._withdraw(record, instance.reason)
        self._complete(record)
        self._touch((record.model,))

    def _loaded(self, record: VersionRecord, instance: InstanceRecord, loaded: LoadedInstance) -> None:
        instance.state = InstanceState.READY
        instance.reason = ""
        instance.hopeful = False
        instance.servable_id = loaded.servable_id
        instance.retry_ns = NEVER
        record.loaded[instance.placed.slot] = loaded
        if record.servable is not None:
            self._host(record, instance)
        self._complete(record)

    def _complete(self, record: VersionRecord) -> None:
        """Make the servable once every instance is ready or has failed, and at least one is ready."""
        states = [instance.state for instance in record.instances.values()]
        ready = [i for i in record.instances.values() if i.state is InstanceState.READY]
        model = self.served[record.model].desired if record.model in self.served else None
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
            self._host(record, instance)
        batching = "batchable" if record.servable.batchable else f"not batchable: {record.servable.reason}"
        log.info(
            "model %s version %s is ready (%s)",
            record.model,
            record.version,
            batching,
            extra=self._about(record),
        )

    def _host(self, record: VersionRecord, instance: InstanceRecord) -> None:
        assert record.servable is not None, "only a servable is hosted"
        placed = instance.placed
        hosting = self._dataplane.host(
            record.servable, placed.slot, instance.servable_id, count=placed.count, width=placed.width
        )
        now_ns = self._clock.now_ns()
        for rows, run_ns in record.loaded[placed.slot].warmed:
            hosting.cost.observe(rows, run_ns, now_ns)
        self._dataplane.pump()

    def _withdraw(self, record: VersionRecord, reason: str) -> None:
        """Take a version off its slots; its instances are absent afterwards."""
        servable = record.servable
        record.servable = None
        for slot, instance in record.instances.items():
            if servable is not None:
                self._dataplane.unhost(servable, slot)
            if instance.state is InstanceState.READY:
                instance.state = InstanceState.ABSENT
                if (link := self._loader.links.get(slot)) is not None:
                    link.forget(instance.servable_id)
        self._refresh(record.model, self.desired)
        self._publish((record.model,), self.desired)
        if servable is not None:
            self._dataplane.retire(servable, reason)

    async def _forget(self, served: ServedModel, record: VersionRecord) -> None:
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
        log.info("model %s version %s is unloaded", record.model, record.version, extra=self._about(record))
        self._touch((served.model,))

    # Placement.

    def _placed(self, document: ModelDocument, record: VersionRecord) -> tuple[Placed, ...]:
        """Raises PlacementFailed."""
        path = record.source.path or record.source.source
        return place(document.instances, path, list(self._pool.slots.values()), self._runtimes, self._node)

    def _place(self, record: VersionRecord) -> None:
        """Say on which slots a version runs; what is on others of it goes, what stays is left alone."""
        model = self.served[record.model].desired
        if model is None:
            return
        try:
            placed = self._placed(model.document, record)
        except PlacementFailed as error:
            for slot in record.instances.keys() - self._pool.slots.keys():
                self._leave(record, record.instances.pop(slot))
            if record.servable is not None and not record.instances:
                record.reason = str(error)
                self._withdraw(record, record.reason)
            elif record.servable is None and record.reason != str(error):
                record.reason = str(error)
                log.error(
                    "model %s version %s cannot be placed: %s",
                    record.model,
                    record.version,
                    error,
                    extra=self._about(record),
                )
            return
        record.reason = "" if not record.quarantined_until_ns else record.reason
        if not record.size_bytes and record.source.path:
            record.size_bytes = _size_bytes(record.source.path)
        before = record.instances
        record.instances = {}
        for each in placed:
            known = before.pop(each.slot, None)
            record.instances[each.slot] = (
                known if known is not None and known.placed == each else InstanceRecord(each)
            )
        for gone in before.values():
            self._leave(record, gone)

    def _leave(self, record: VersionRecord, gone: InstanceRecord) -> None:
        """Take a version off a slot on which it is not to run any more."""
        slot = gone.placed.slot
        if record.servable is not None:
            self._dataplane.unhost(record.servable, slot)
        link = self._loader.links.get(slot)
        if gone.state is InstanceState.READY and link is not None:
            link.forget(gone.servable_id)

    # What is served.

    def _refresh(self, name: str, desired: Desired) -> None:
        """Work out a model's route from its records."""
        served = self.served.get(name)
        if served is None:
            return
        if served.desired is None and not served.records and not served.problem:
            del self.served[name]
            self._routes.pop(name, None)
            self.notable.discard(name)
            self._unapplied.discard(name)
            self._wakes.pop(name, None)
            return
        self._routes[name] = build_route(served)
        model = served.desired
        required = model is not None and model.document.required
        settling = name in desired.settling
        (
            self.notable.add
            if served.records or served.problem or required or settling
            else self.notable.discard
        )(name)
        applied = model is None or served.routing is model.document
        (self._unapplied.discard if applied else self._unapplied.add)(name)

    def _publish(self, models: Collection[str], desired: Desired) -> None:
        """Swap the routing table for one of the present state."""
        self._dataplane.table = RouteTable(dict(self._routes))
        if not self._unapplied and desired is self.desired and not self._touched & desired.models.keys():
            self.applied_revision = desired.revision
            if self._observed_ns is not None:
                self._accounts.config_apply_seconds.observe(self._clock.now_ns() - self._observed_ns)
                self._observed_ns = None
        self._on_change(models)

    def _view(self, served: ServedModel) -> policy.ModelView:
        links: Mapping[str, object] = self._loader.links
        return policy.ModelView(
            wanted=served.wanted if served.desired is not None else {},
            versions=tuple(
                policy.VersionView(
                    key=record.key,
                    version=record.version,
                    instances=tuple(
                        policy.InstanceView(slot, instance.state, slot in links, instance.retry_ns)
                        for slot, instance in record.instances.items()
                    ),
                    ready=record.servable is not None,
                    draining=record.draining,
                    busy=record.servable is not None and record.servable.busy,
                    drain_until_ns=record.drain_until_ns,
                    blocked_until_ns=record.quarantined_until_ns,
                    fetch=record.fetch,
                    fetch_retry_ns=record.fetch_retry_ns,
                    leaving=record.leaving,
                )
                for record in served.records.values()
            ),
        )


def _wanted(served: ServedModel, model: DesiredModel) -> list[str]:
    """Return the versions that are to be loaded, ascending by number."""
    if served.on_demand:
        return sorted(served.declared() & served.awake, key=int)
    document = model.document
    wanted = set(document.wanted_versions(model.versions))
    # a version that cannot be loaded does not count as found: the one before it stands in, also after a
    # restart
    broken = {
        record.version
        for record in served.records.values()
        if record.state is VersionState.FAILED and record.key == _key_of(document, model, record.version)
    }
    if broken:
        wanted |= set(document.wanted_versions(model.versions.keys() - broken))
    return sorted(wanted & model.versions.keys(), key=int)


def _turn_ns(record: VersionRecord) -> int:
    return max(TURN_NS, record.load_ns)


def _unproven(due: tuple[ServedModel, policy.Action]) -> tuple[bool, int]:
    """Order what is due: a load that never went well comes last, so that it holds up no other; of these, who
    has waited longest for room is the first.
    """
    served, action = due
    if not isinstance(action, policy.LoadInstance):
        return False, 0
    record = served.records[action.key]
    return not record.loaded, record.instances[action.slot].no_room_ns


def _key_of(document: ModelDocument, model: DesiredModel, version: str) -> str:
    source = model.versions.get(version)
    return spec_key(document, source) if source is not None else ""


def _weight(record: VersionRecord, slot: str) -> int:
    """Return the memory that a version takes on a slot: what its worker said, or else its files' size."""
    loaded = record.loaded.get(slot)
    return max(record.size_bytes, loaded.memory_bytes if loaded is not None else 0)


def _size_bytes(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it is gone; loading it will say so
        return 0
