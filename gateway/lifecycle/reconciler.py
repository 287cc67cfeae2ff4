"""The reconciler: observe, ask the policy for what is due, do it, repeat.

One task owns all state here; loads and unloads run in tasks of the same group and report back through it. A
version takes traffic only after every one of its instances has been loaded, probed and warmed up, or has
failed; the table is swapped as a whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from typing import TYPE_CHECKING

from gateway.lifecycle import policy
from gateway.lifecycle.desired import Desired, DesiredModel
from gateway.lifecycle.loading import load_instance, servable_spec, spec_key, unload_instance
from gateway.lifecycle.placement import PlacementFailed, place
from gateway.lifecycle.record import InstanceRecord, InstanceState, VersionRecord, VersionState
from gateway.lifecycle.routes import ServedModel, build_route
from gateway.routing.table import RouteTable
from gateway.scheduling.decision import NEVER
from gateway.servable import Servable
from gateway.workerpool.backoff import Backoff
from gateway.workerpool.link import RequestRefused, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gateway.clock import Clock
    from gateway.config.document import ModelDocument
    from gateway.dataplane import Dataplane
    from gateway.lifecycle.loading import LoadedInstance
    from gateway.telemetry.accounts import Accounts
    from gateway.workerpool.link import WorkerLink
    from gateway.workerpool.pool import Pool

log = logging.getLogger(__name__)

DRAIN_LIMIT_NS = 60_000_000_000
QUARANTINE_NS = 30_000_000_000
# A version that served before keeps its requests waiting for so many loads in a row that lose their worker.
LOST_LOADS = 3


class Reconciler:
    """`on_change` is called after every change of what is served."""

    def __init__(
        self,
        clock: Clock,
        pool: Pool,
        dataplane: Dataplane,
        accounts: Accounts,
        runtimes: Collection[str],
        on_change: Callable[[], None],
    ) -> None:
        self.desired = Desired()
        self.served: dict[str, ServedModel] = {}
        self.applied_revision = 0  # the last at which every model's routing was its document's
        self._observed_ns: int | None = None
        self._clock = clock
        self._pool = pool
        self._dataplane = dataplane
        self._accounts = accounts
        self._runtimes = runtimes
        self._on_change = on_change
        self._links: dict[str, WorkerLink] = {}  # {slot name: link}, of workers that are up
        self._backoffs: dict[tuple[str, str], Backoff] = {}  # {(key, slot): backoff}
        # {slot name: held by the load that its worker is at}: who is alone is who has ended the worker
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dirty = asyncio.Event()
        self._wake_ns = NEVER
        self.observed = asyncio.Event()

    def observe(self, desired: Desired) -> None:
        """Take a new snapshot of desired state."""
        self.desired = desired
        self._observed_ns = self._clock.now_ns()
        for model, problem in desired.problems.items():
            served = self.served.setdefault(model, ServedModel(model))
            if served.problem != problem:
                log.error(
                    "model %s: its document is not valid, the last good one, if any, stays: %s",
                    model,
                    problem,
                )
        for name, served in self.served.items():
            served.problem = desired.problems.get(name, "")
        self.observed.set()
        self._dirty.set()

    def worker_up(self, slot: str, link: WorkerLink) -> None:
        self._links[slot] = link
        self._dirty.set()

    def worker_down(self, slot: str, reason: str) -> None:
        """Everything on this slot is absent again. Loads that were under way see the link's end
        themselves.
        """
        self._links.pop(slot, None)
        for record in self._records():
            instance = record.instances.get(slot)
            if instance is not None and instance.state is InstanceState.READY:
                instance.state = InstanceState.ABSENT
                instance.reason = reason
        self._dirty.set()

    def quarantine(self, servable: Servable, reason: str) -> None:
        """Take a version out of service that keeps ending workers, and try it again later."""
        for record in self._records():
            if record.servable is servable:
                log.error("model %s version %s is quarantined: %s", record.model, record.version, reason)
                record.reason = f"quarantined: {reason}"
                record.quarantined_until_ns = self._clock.now_ns() + QUARANTINE_NS
                self._withdraw(record, record.reason)
        self._dirty.set()

    def _records(self) -> list[VersionRecord]:
        return [record for served in self.served.values() for record in served.records.values()]

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._wait()
                self._reconcile(tasks)

    async def _wait(self) -> None:
        timeout_s = None if self._wake_ns == NEVER else max(self._wake_ns - self._clock.now_ns(), 0) / 1e9
        try:
            async with asyncio.timeout(timeout_s):
                await self._dirty.wait()
        except TimeoutError:
            pass
        self._dirty.clear()

    def _reconcile(self, tasks: asyncio.TaskGroup) -> None:
        now_ns = self._clock.now_ns()
        self._wake_ns = NEVER
        for name, model in self.desired.models.items():
            self._adopt(self.served.setdefault(name, ServedModel(name)), model)
        due: list[tuple[ServedModel, policy.Action]] = []
        for name, served in self.served.items():
            if name not in self.desired.models:
                served.desired = None
            due += [(served, action) for action in policy.next_actions(now_ns, _view(served, self._links))]
        for served, action in sorted(due, key=_unproven):
            self._act(tasks, served, action, now_ns)
        for name, served in list(self.served.items()):
            if served.desired is None and not served.records and not served.problem:
                del self.served[name]
        self._publish()

    def _adopt(self, served: ServedModel, model: DesiredModel) -> None:
        """Bring a model's records up to its document: new versions appear, policy applies at once."""
        document = model.document
        # a version that cannot be loaded does not count as found: the one before it stands in, also after a
        # restart
        broken = {
            record.version
            for record in served.records.values()
            if record.state is VersionState.FAILED and record.key == _key_of(document, model, record.version)
        }
        wanted = set(document.wanted_versions(model.versions))
        if broken:
            wanted |= set(document.wanted_versions(model.versions.keys() - broken))
        served.wanted = {}
        for version in sorted(wanted, key=int):
            source = model.versions.get(version)
            if source is None:
                continue
            key = spec_key(document, source)
            served.wanted[version] = key
            if key in served.records:
                served.records[key].draining = False  # it is wanted again before it was gone
                continue
            record = VersionRecord(served.model, version, key, source)
            try:
                placed = place(
                    document.instances,
                    source.path,
                    list(self._pool.slots.values()),
                    self._runtimes,
                    socket.gethostname(),
                )
                record.instances = {each.slot: InstanceRecord(each) for each in placed}
            except PlacementFailed as error:
                record.reason = str(error)
                log.error("model %s version %s cannot be placed: %s", served.model, version, error)
            served.records[key] = record
        if served.desired is not model:
            served.desired = model
            for record in served.records.values():
                if record.servable is not None:
                    record.servable.apply(document, model.revision)

    def _act(self, tasks: asyncio.TaskGroup, served: ServedModel, action: policy.Action, now_ns: int) -> None:
        match action:
            case policy.StartSlot(slot):
                self._pool.start(slot)
            case policy.LoadInstance(key, slot):
                record = served.records[key]
                record.quarantined_until_ns = 0
                if record.reason.startswith("quarantined"):
                    record.reason = ""
                record.instances[slot].state = InstanceState.LOADING
                tasks.create_task(
                    self._load(served, record, slot), name=f"load {record.model}/{record.version}"
                )
            case policy.Drain(key):
                record = served.records[key]
                record.draining = True
                record.drain_until_ns = now_ns + DRAIN_LIMIT_NS
                log.info("model %s version %s drains", record.model, record.version)
                self._wake_ns = now_ns
            case policy.Forget(key):
                tasks.create_task(
                    self._forget(served, served.records.pop(key)), name=f"unload {served.model}"
                )
            case policy.WakeAt(at_ns):
                self._wake_ns = min(self._wake_ns, at_ns)

    async def _load(self, served: ServedModel, record: VersionRecord, slot: str) -> None:
        async with self._turns[slot]:  # the worker loads one after the other anyway
            await self._load_now(served, record, slot)
        self._dirty.set()

    async def _load_now(self, served: ServedModel, record: VersionRecord, slot: str) -> None:
        instance, link = record.instances[slot], self._links.get(slot)
        model = served.desired
        if link is None or model is None:
            instance.state = InstanceState.ABSENT
            return
        began_ns = self._clock.now_ns()
        try:
            device = str(self._pool.slots[slot].device)
            spec = servable_spec(model.document, record.source, instance.placed, device)
            loaded = await load_instance(link, model.document, spec)
        except RequestRefused as error:
            self._failed(record, instance, str(error), retryable=error.retryable)
        except WorkerLost as error:
            if self._links.get(slot) is link:
                del self._links[slot]  # the next load is not to be blamed for the link's end
            if not error.begun:  # another gateway's load, or a run, ended the worker
                instance.state = InstanceState.ABSENT
                return
            reason = f"its worker was lost while loading: {error}"
            self._failed(record, instance, reason, retryable=True, lost=True)
        except TimeoutError:
            self._failed(record, instance, "loading took too long", retryable=True)
            self._pool.workers[slot].kill(f"loading {record.model} version {record.version} hangs")
        else:
            record.load_ns = self._clock.now_ns() - began_ns
            self._loaded(served, record, instance, loaded)

    def _failed(
        self,
        record: VersionRecord,
        instance: InstanceRecord,
        reason: str,
        *,
        retryable: bool,
        lost: bool = False,
    ) -> None:
        instance.state = InstanceState.FAILED
        instance.reason = reason
        backoff = self._backoffs.setdefault(
            (record.key, instance.placed.slot), Backoff(first_s=1.0, limit_s=60.0)
        )
        wait_s = backoff.after_s(0.0) or 0.5
        instance.retry_ns = self._clock.now_ns() + int(wait_s * 1e9) if retryable else NEVER
        log.error(
            "model %s version %s failed to load on %s: %s",
            record.model,
            record.version,
            instance.placed.slot,
            reason,
        )
        patient = lost and backoff.failures < LOST_LOADS
        if not patient and all(each.state is InstanceState.FAILED for each in record.instances.values()):
            self._withdraw(record, reason)
        self._complete(record)

    def _loaded(
        self, served: ServedModel, record: VersionRecord, instance: InstanceRecord, loaded: LoadedInstance
    ) -> None:
        instance.state = InstanceState.READY
        instance.reason = ""
        instance.servable_id = loaded.servable_id
        instance.retry_ns = NEVER
        self._backoffs.pop((record.key, instance.placed.slot), None)
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
        )
        for instance in ready:
            self._host(record, instance)
        batching = "batchable" if record.servable.batchable else f"not batchable: {record.servable.reason}"
        log.info("model %s version %s is ready (%s)", record.model, record.version, batching)

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
                if (link := self._links.get(slot)) is not None:
                    link.forget(instance.servable_id)
        self._publish()
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
        if all(other.version != record.version for other in served.records.values()):
            self._accounts.close(record.model, record.version)
        for slot, instance in record.instances.items():
            self._backoffs.pop((record.key, slot), None)
            link = self._links.get(slot)
            if link is not None and instance.state is InstanceState.READY:
                try:
                    await unload_instance(link, instance.servable_id)
                except (WorkerLost, RequestRefused, TimeoutError) as error:
                    log.info("unloading model %s version %s: %s", record.model, record.version, error)
        log.info("model %s version %s is unloaded", record.model, record.version)
        self._dirty.set()

    def _publish(self) -> None:
        """Swap the routing table for one of the present state."""
        self._dataplane.table = RouteTable(
            {name: build_route(served) for name, served in self.served.items()}
        )
        in_force = [served for served in self.served.values() if served.desired is not None]
        if all(
            served.desired is not None and served.routing is served.desired.document for served in in_force
        ):
            self.applied_revision = self.desired.revision
            if self._observed_ns is not None:
                self._accounts.config_apply_seconds.observe(self._clock.now_ns() - self._observed_ns)
                self._observed_ns = None
        self._on_change()


def _unproven(due: tuple[ServedModel, policy.Action]) -> bool:
    """Order what is due: a load that never went well comes last, so that it holds up no other."""
    served, action = due
    return isinstance(action, policy.LoadInstance) and not served.records[action.key].loaded


def _key_of(document: ModelDocument, model: DesiredModel, version: str) -> str:
    source = model.versions.get(version)
    return spec_key(document, source) if source is not None else ""


def _view(served: ServedModel, links: Mapping[str, object]) -> policy.ModelView:
    document = served.desired.document if served.desired is not None else None
    return policy.ModelView(
        wanted=served.wanted if served.desired is not None else {},
        named=document.named_versions() if document is not None else (),
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
            )
            for record in served.records.values()
        ),
    )
