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
from typing import TYPE_CHECKING

from gateway.lifecycle import policy
from gateway.lifecycle.desired import Desired, DesiredModel
from gateway.lifecycle.hosts import Hosts
from gateway.lifecycle.loader import Loader
from gateway.lifecycle.loading import spec_key
from gateway.lifecycle.loads import Loads
from gateway.lifecycle.placer import Placer
from gateway.lifecycle.publication import Publication
from gateway.lifecycle.record import InstanceState, VersionRecord
from gateway.lifecycle.residence import Residence
from gateway.lifecycle.rooms import Rooms
from gateway.lifecycle.routes import ServedModel
from gateway.lifecycle.view import view_of, wanted_versions
from gateway.scheduling.decision import NEVER
from gateway.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gateway.clock import Clock
    from gateway.dataplane import Dataplane
    from gateway.servable import Servable
    from gateway.telemetry.accounts import Accounts
    from gateway.workerpool.pool import Pool
    from gateway.workerpool.seam import Link

log = logging.getLogger(__name__)

DRAIN_LIMIT_NS = 60_000_000_000
QUARANTINE_NS = 30_000_000_000


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
        self.rejected = 0  # documents that were not valid when they came
        self.looked_at = 0  # the revision whose changes are all in force, or stand in their models' states
        self._clock = clock
        self._pool = pool
        self._dataplane = dataplane
        self._accounts = accounts
        self._publication = Publication(clock, dataplane, accounts, on_change)
        self._loader = Loader(clock, pool)
        self._hosts = Hosts(clock, dataplane, accounts, self._loader, self._withdrawn)
        self._placer = Placer(pool.slots, runtimes, node, self._hosts)
        rooms = Rooms(pool.slots, self._publication.routes)
        self._loads = Loads(clock, self._loader, self._placer, self._hosts, rooms, self._touch_one)
        self._residence = Residence(rooms, self._loads, self._tenants, self._touch_one, self._wake)
        self._touched: set[str] = set()  # models to look at in the next pass
        self._changed: list[tuple[ServedModel, DesiredModel]] = []  # whose policy is to change with the table
        self._wakes: dict[str, int] = {}  # {model: when to look at it}, only where there is a time
        self._dirty = asyncio.Event()
        self._has_snapshot = False
        self.observed = asyncio.Event()  # the first snapshot has been looked at

    @property
    def applied_revision(self) -> int:
        """The last revision at which every model's routing was its document's."""
        return self._publication.applied_revision

    # What happens outside.

    def observe(self, desired: Desired) -> None:
        """Take a new snapshot of desired state."""
        before, self.desired = self.desired, desired
        self._publication.begin()
        changed = desired.changed
        if changed is None:
            changed = frozenset(self.served) | desired.models.keys()
        for model in before.problems.keys() | desired.problems.keys():
            problem = desired.problems.get(model, "")
            if problem and problem != before.problems.get(model):
                self.rejected += 1
                log.error(
                    "model %s: its document is not valid, the last good one, if any, stays: %s",
                    model,
                    problem,
                    extra={"model": model, "revision": desired.revision},
                )
            if problem != before.problems.get(model, ""):
                changed |= {model}
        if desired.gateway_problem and desired.gateway_problem != before.gateway_problem:
            self.rejected += 1
        self._has_snapshot = True
        self._touch(changed)

    def demand(self, model: str, version: str) -> bool:
        """Somebody waits for a version: one that is loaded on demand is loaded. Return whether there is sense
        in waiting.
        """
        served = self.served.get(model)
        if served is None:
            return False
        record = served.current().get(version)
        if record is not None and record.hopeless:
            return False
        if version in served.declared() and version not in served.awake:
            served.awake |= {version}
            self._touch((model,))
        return version in served.declared() or version in served.wanted

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
            served = self.served[record.model]
            if record.fetch in (InstanceState.ABSENT, InstanceState.FAILED):
                self._placer.skip_fetch(served, record)
            if record.fetch is InstanceState.READY:
                self._placer.place(served, record)
        self._touch(self.notable)

    def await_slots(self) -> None:
        """More slots may be there than are known yet: what cannot be placed waits until `slots_known`."""
        self._placer.complete = False

    def slots_known(self) -> None:
        """What cannot be placed on the slots that there are has failed."""
        if not self._placer.complete:
            self._placer.complete = True
            self.slots_changed()

    def quarantine(self, servable: Servable, reason: str) -> None:
        """Take a version out of service that keeps ending workers, and try it again later."""
        for record in self._records((servable.model,)):
            if record.servable is servable:
                served = self.served[record.model]
                log.error(
                    "model %s version %s is quarantined: %s",
                    record.model,
                    record.version,
                    reason,
                    extra=served.about(record),
                )
                record.reason = f"quarantined: {reason}"
                record.quarantined_until_ns = self._clock.now_ns() + QUARANTINE_NS
                self._hosts.withdraw(record, record.reason)
        self._touch((servable.model,))

    def _touch(self, models: Iterable[str]) -> None:
        self._touched.update(models)
        self._dirty.set()

    def _touch_one(self, model: str) -> None:
        self._touch((model,))

    def _records(self, models: Iterable[str]) -> list[VersionRecord]:
        found = [served for name in models if (served := self.served.get(name)) is not None]
        return [record for served in found for record in served.records.values()]

    def _tenants(self) -> list[ServedModel]:
        """Return the models that may take memory."""
        return [self.served[name] for name in self.notable]

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
        self._residence.relieve(now_ns)
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
        declared = served.declared()
        if model is None:
            served.desired = None
        else:
            self._adopt(served, model)
            self._residence.rest(served, now_ns)
        for version in declared - served.declared() - served.current().keys():
            self._accounts.close(name, version)  # of what was asked for, and may never have been loaded
        view = view_of(served, self._loader.links)
        return [(served, action) for action in policy.next_actions(now_ns, view)]

    def _adopt(self, served: ServedModel, model: DesiredModel) -> None:
        """Bring a model's records up to its document: new versions appear, policy applies at once."""
        document = model.document
        if served.desired is not model:
            served.desired = model
            self._changed.append((served, model))
        if not served.on_demand:
            served.awake = frozenset()
        served.wanted = {}
        for version in wanted_versions(served, model):
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
                self._placer.skip_fetch(served, record)
            else:
                self._placer.place(served, record)

    def _wake(self, model: str, at_ns: int) -> None:
        self._wakes[model] = min(self._wakes.get(model, NEVER), at_ns)

    def _act(self, tasks: asyncio.TaskGroup, served: ServedModel, action: policy.Action, now_ns: int) -> None:
        match action:
            case policy.StartSlot(slot):
                self._pool.start(slot)
            case policy.Fetch(key):
                record = served.records[key]
                record.fetch = InstanceState.LOADING
                tasks.create_task(
                    self._loads.fetch(served, record), name=f"fetch {record.model}/{record.version}"
                )
            case policy.LoadInstance(key, slot):
                record = served.records[key]
                if slot not in record.instances:  # it went while this pass gave way
                    self._touch((served.model,))
                    return
                record.quarantined_until_ns = 0
                if record.reason.startswith("quarantined"):
                    record.reason = ""
                if self._residence.has_room(served, record, slot, now_ns):
                    record.instances[slot].state = InstanceState.LOADING
                    tasks.create_task(
                        self._loads.load(served, record, slot), name=f"load {record.model}/{record.version}"
                    )
            case policy.Drain(key):
                record = served.records[key]
                record.draining = True
                record.drain_until_ns = now_ns + DRAIN_LIMIT_NS
                log.info(
                    "model %s version %s drains", record.model, record.version, extra=served.about(record)
                )
                self._wake(served.model, now_ns)
            case policy.Forget(key):
                record = served.records.pop(key)
                tasks.create_task(self._unload(served, record), name=f"unload {served.model}")
            case policy.WakeAt(at_ns):
                self._wake(served.model, at_ns)

    async def _unload(self, served: ServedModel, record: VersionRecord) -> None:
        await self._hosts.unload(served, record)
        self._touch((served.model,))

    # What is served.

    def _withdrawn(self, model: str) -> None:
        self._refresh(model, self.desired)
        self._publish((model,), self.desired)

    def _refresh(self, name: str, desired: Desired) -> None:
        """Work out a model's route from its records."""
        served = self.served.get(name)
        if served is None:
            return
        if served.desired is None and not served.records and not served.problem:
            del self.served[name]
            self._publication.remove(name)
            self.notable.discard(name)
            self._wakes.pop(name, None)
            return
        self._publication.refresh(served)
        required = served.desired is not None and served.desired.document.required
        if served.records or served.problem or required or name in desired.settling:
            self.notable.add(name)
        else:
            self.notable.discard(name)

    def _publish(self, models: Collection[str], desired: Desired) -> None:
        complete = desired is self.desired and not self._touched & desired.models.keys()
        self._publication.publish(models, desired.revision, complete=complete)


def _unproven(due: tuple[ServedModel, policy.Action]) -> tuple[bool, int]:
    """Order what is due: a load that never went well comes last, so that it holds up no other; of these, who
    has waited longest for room is the first.
    """
    served, action = due
    if not isinstance(action, policy.LoadInstance):
        return False, 0
    record = served.records[action.key]
    return not record.loaded, record.instances[action.slot].no_room_ns
