"""A reconciler and a data plane over slots whose workers are fakes: passes happen when a test says so, time
passes when it says so, and nothing else is different from a gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from gateway.admission.access import Access
from gateway.admission.admission import Admission
from gateway.call import Call, Tensor
from gateway.config.device import parse_device
from gateway.config.validation import validate
from gateway.dataplane import Dataplane
from gateway.lifecycle.catalog import Catalog
from gateway.lifecycle.desired import Desired, DesiredModel, DesiredVersion, Sources
from gateway.lifecycle.reconciler import Reconciler
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.tracing import Tracing
from gateway.workerpool.link import WorkerLost
from gateway.workerpool.slot import Slot
from wire.arena import ArenaFull
from wire.frames import (
    Done,
    Kind,
    Loaded,
    Outcome,
    Probed,
    Report,
    Signature,
    TensorAt,
    TensorSpec,
    WarmedUp,
)

MIB = 1 << 20
SECOND_NS = 1_000_000_000
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),), "fake")
LOOPBACK = {"instances": [{"runtime": "loopback", "device": "cpu", "threads": 1}]}
ON_DEMAND = {"load": {"mode": "on_demand"}}


class ManualClock:
    """Far ahead of the real one, so that no alarm of the system ever rings."""

    def __init__(self) -> None:
        self.now = time.monotonic_ns() + 10**16

    def now_ns(self) -> int:
        return self.now


class FakeLink:
    """A worker that loads at once, but what a test holds back (`gates`), and refuses what `failures` says.
    Batches wait until `Rig.run` answers them.
    """

    def __init__(self) -> None:
        self.loaded: dict[int, object] = {}  # {servable id: spec}
        self.log: list[tuple[str, str, str]] = []  # (load or unload, model, version)
        self.gates: dict[str, asyncio.Event] = {}  # {model: when its loads go on}
        self.failures: dict[str, list[Exception]] = {}  # {model: what its next loads raise}
        self.memory_bytes: dict[str, int] = {}  # {model: what it takes}
        self.batches: list[tuple[int, int, int]] = []  # (batch, servable, rows)
        self.arena_used_bytes = 0
        self.arena_bytes = 16 * MIB
        self.lost: str | None = None
        self._end = asyncio.get_running_loop().create_future()

    def lose(self, reason: str) -> None:
        self.lost = reason
        if not self._end.done():
            self._end.set_result(None)

    async def request(self, kind, body, answer, timeout_s):
        if self.lost is not None:
            raise WorkerLost(self.lost)
        if kind is Kind.LOAD:
            return await self._load(body.servable, body.spec)
        if kind is Kind.PROBE:
            return Probed(batchable=True, reason="")
        if kind is Kind.WARM_UP:
            return WarmedUp((1000,) * len(body.batch_sizes))
        assert kind is Kind.UNLOAD, kind
        self.forget(body.servable)
        return Report(0, 0, {})

    async def _load(self, servable, spec):
        model = spec.model
        if model in self.gates:
            gate = asyncio.ensure_future(self.gates[model].wait())
            await asyncio.wait((gate, self._end), return_when=asyncio.FIRST_COMPLETED)
            gate.cancel()
            if self.lost is not None:
                raise WorkerLost(self.lost, begun=True)
        if self.failures.get(model):
            raise self.failures[model].pop(0)
        self.loaded[servable] = spec
        self.log.append(("load", model, spec.version))
        return Loaded(SIGNATURE, 1, self.memory_bytes.get(model, 0))

    def forget(self, servable) -> None:
        spec = self.loaded.pop(servable, None)
        if spec is not None:
            self.log.append(("unload", spec.model, spec.version))

    def run(self, batch, servable, rows, inputs, outputs, deadline_ns, *, alone=False):
        if self.lost is not None:
            raise ArenaFull
        assert servable in self.loaded, "a batch for what is not loaded"
        self.batches.append((batch, servable, rows))

    def cancel(self, batch) -> None:
        """It is answered all the same."""

    def view(self, tensor):
        return memoryview(bytes(tensor.size_bytes))

    def free(self, outputs) -> None:
        """Nothing is shared."""

    def residents(self) -> set[str]:
        return {spec.model for spec in self.loaded.values()}


class FakeWorker:
    def __init__(self, slot) -> None:
        self.slot = slot
        self.restarts = 0
        self.resident_bytes = 0
        self.pid = 1
        self.killed: list[str] = []

    def kill(self, reason) -> None:
        self.killed.append(reason)


class FakePool:
    """`start` is only noted: a test brings the worker up."""

    def __init__(self, slots) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.workers = {slot.name: FakeWorker(slot) for slot in slots}
        self.started: set[str] = set()

    def start(self, name):
        self.started.add(name)
        return self.workers[name]


class Origin:
    """Keeps what calls were answered with: {call id: (version, error or None)}."""

    def __init__(self) -> None:
        self.answers: dict[int, tuple[str, Exception | None]] = {}

    def settle(self, replies) -> None:
        for reply in replies:
            assert reply.call.id not in self.answers, "answered twice"
            self.answers[reply.call.id] = (reply.version, reply.error)

    def settle_batch(self, reply) -> None:
        for call in reply.calls:
            assert call.id not in self.answers, "answered twice"
            self.answers[call.id] = (reply.version, None)


def slot(name="cpu", memory_bytes=None, capacity=2):
    return Slot(name, parse_device("cpu"), (0,), capacity, memory_bytes)


def model(name, folder=None, *, size_bytes=0, versions=("1",), revision=1, **document):
    """A model of a directory, whose versions are files of this size."""
    found = {}
    for version in versions:
        path = f"/nowhere/{name}/{version}"
        if folder is not None:
            file = folder / f"{name}-{version}.onnx"
            if not file.exists():
                file.touch()
            with file.open("r+b") as opened:
                opened.truncate(size_bytes)
            path = str(file)
        found[version] = DesiredVersion(version, path, "f")
    return DesiredModel(validate({**LOOPBACK, **document}, model=name, versions=versions), found, revision)


def stored(name, source, *, digest=None, revision=1, **document):
    """A model of a store, whose version is fetched."""
    versions = {"1": {"source": source, **({"digest": digest} if digest else {})}}
    validated = validate({**LOOPBACK, "versions": versions, **document}, model=name)
    return DesiredModel(validated, Sources(validated.versions), revision)


class Rig:
    """`async with Rig(slots) as rig`: its slots' workers are up from the start, unless `up` is false."""

    def __init__(self, *slots, up: bool = True) -> None:
        self.clock = ManualClock()
        self.pool = FakePool(slots or (slot(),))
        self.accounts = Accounts()
        self.admission = Admission(1 << 30)
        self.origin = Origin()
        self.links: dict[str, FakeLink] = {}
        self.considered: list[str] = []  # the models that passes looked at
        self.changes: list[set[str]] = []
        self._ids = itertools.count(1)
        self._revision = 0
        self._models: dict[str, DesiredModel] = {}
        self.dataplane = Dataplane(
            asyncio.get_running_loop(),
            self.clock,
            self.admission,
            Access(),
            self.accounts,
            Tracing(),
            kill_worker=lambda name, reason: self.pool.workers[name].kill(reason),
            quarantine=lambda servable, reason: self.reconciler.quarantine(servable, reason),
            demand=lambda name, version: self.reconciler.demand(name, version),
        )
        self.reconciler = Reconciler(
            self.clock,
            self.pool,
            self.dataplane,
            self.accounts,
            {"loopback": ""},
            self._on_change,
            node="n",
        )
        self.catalog = Catalog(self.reconciler, lambda: self.admission.draining)
        consider = self.reconciler._consider

        def considered(name, *rest):
            self.considered.append(name)
            return consider(name, *rest)

        self.reconciler._consider = considered
        if up:
            for name in self.pool.slots:
                self.worker_up(name)

    async def __aenter__(self):
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *raised):
        for task in list(self._group._tasks):
            task.cancel()
        await self._group.__aexit__(*raised)
        self.dataplane.close()
        if raised[0] is None:
            assert self.admission.held_bytes == sum(
                item.held_bytes for item in self.dataplane._settlement.items.values()
            ) + sum(c.size_bytes for w in self.dataplane._parking._calls.values() for c in w.values())

    def _on_change(self, models) -> None:
        self.changes.append(set(models))
        self.catalog.changed()

    @property
    def link(self) -> FakeLink:
        return next(iter(self.links.values()))

    # What happens outside.

    def worker_up(self, name="cpu") -> None:
        link = self.links[name] = FakeLink()
        place = self.pool.slots[name]
        self.dataplane.slot_up(name, str(place.device), link, place.capacity, 16 * MIB)
        self.reconciler.worker_up(name, link)
        self.dataplane.on_credits(name, 2 * place.capacity)

    def worker_down(self, name="cpu", reason="killed by signal 9") -> None:
        self.links.pop(name).lose(reason)
        self.reconciler.worker_down(name, reason)
        self.dataplane.slot_down(name, reason)

    def want(self, *models: DesiredModel, without: tuple[str, ...] = (), problems=None) -> None:
        """Desired state has these models now, and the others as before."""
        self._revision += 1
        for each in models:
            self._models[each.document.model] = each
        for name in without:
            del self._models[name]
        changed = {each.document.model for each in models} | set(without)
        self.reconciler.observe(
            Desired(dict(self._models), problems or {}, revision=self._revision, changed=frozenset(changed))
        )

    def call(self, name, version="", *, rows=1, **more) -> int:
        """Send a call; return its id."""
        id_ = next(self._ids)
        made = Call(
            id=id_,
            origin=self.origin,
            model=name,
            version=version,
            inputs=(Tensor("x", "FP32", (rows, 1), bytes(4 * rows)),),
            arrived_ns=self.clock.now,
            size_bytes=more.pop("size_bytes", 100),
            **more,
        )
        self.dataplane.on_calls([made])
        return id_

    # Time and passes.

    async def settle(self, *, answering: bool = True) -> None:
        """Make passes until nothing is due at this time; with `answering`, batches are answered between."""
        for _ in range(300):
            for _ in range(10):
                await asyncio.sleep(0)
            fetches = [task for task in self._group._tasks if task.get_name().startswith("fetch ")]
            if fetches:
                await asyncio.wait(fetches)
                continue
            ran = self.run() if answering else 0
            reconciler = self.reconciler
            due = reconciler._touched or any(at <= self.clock.now for at in reconciler._wakes.values())
            if not due and not ran:
                return
            await reconciler._reconcile(self._group)
        raise AssertionError("it does not come to rest")

    async def step(self) -> None:
        """Make one pass."""
        await self.reconciler._reconcile(self._group)
        for _ in range(10):
            await asyncio.sleep(0)

    async def advance(self, ns: int, *, answering: bool = True) -> None:
        """Let time pass, to each moment at which somebody wants to be woken."""
        until = self.clock.now + ns
        while True:
            await self.settle(answering=answering)
            deadlines = (self.dataplane._parking.next_ns(), self.dataplane._deadlines.next_ns())
            nexts = [*self.reconciler._wakes.values(), *(at for at in deadlines if at is not None)]
            self.clock.now = min([until, *[at for at in nexts if at > self.clock.now]])
            self.dataplane._ring()
            if self.clock.now >= until:
                await self.settle(answering=answering)
                return

    def run(self, most: int = 1000) -> int:
        """Answer what the workers have, of each so many; return how many batches that were."""
        ran = 0
        for name, link in list(self.links.items()):
            batches, link.batches = link.batches[:most], link.batches[most:]
            for batch, _, rows in batches:
                ran += 1
                outputs = (TensorAt("y", "FP32", (rows, 1), 1, 0, 4 * rows),)
                now = self.clock.now
                self.dataplane.on_done(
                    name, batch, Done(Outcome.OK, 1, outputs, "", now, now, now, 1000, now)
                )
        return ran

    # What can be seen.

    def answer(self, id_):
        """Return the version that answered, the error, or None while there is no answer."""
        if id_ not in self.origin.answers:
            return None
        version, error = self.origin.answers[id_]
        return version if error is None else error

    def states(self, name) -> dict[str, str]:
        return {status.version: status.state for status in self.catalog.versions(name)}

    def reason(self, name, version="1") -> str:
        return next(s.reason for s in self.catalog.versions(name) if s.version == version)

    @property
    def parked(self) -> int:
        return len(self.dataplane._parking)
