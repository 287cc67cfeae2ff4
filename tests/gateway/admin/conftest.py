"""A gateway as the admin service sees it, whose parts tests set; its models, routes and accounts are real."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.admin.recent import Recent
from gateway.admin.view import ConfigurationState, Controls, Identity, SlotState, Stopping, View
from gateway.config.validation import validate
from gateway.lifecycle.desired import DesiredModel, DesiredVersion
from gateway.lifecycle.loading import LoadedInstance
from gateway.lifecycle.placement import Placed
from gateway.lifecycle.record import InstanceRecord, InstanceState, VersionRecord
from gateway.lifecycle.routes import ServedModel, build_route
from gateway.routing.table import RouteTable
from gateway.servable import Servable
from gateway.telemetry import recent
from gateway.telemetry.accounts import Accounts
from wire.frames import Probed, Signature, TensorSpec

SIGNATURE = Signature(inputs=(TensorSpec("x", "FP32", (-1, 4)),), outputs=(TensorSpec("y", "FP32", (-1, 4)),))


@dataclass
class FakeClock:
    ns: int = 1_000_000_000

    def now_ns(self):
        return self.ns


@dataclass
class World:
    clock: FakeClock = field(default_factory=FakeClock)
    accounts: Accounts = field(default_factory=Accounts)
    served: dict = field(default_factory=dict)
    slots: list = field(default_factory=lambda: [SlotState("cpu", "n1", "cpu", "up", 2, pid=7)])
    configuration: ConfigurationState = field(default_factory=lambda: ConfigurationState("directory /m"))
    ready: tuple = (True, ())
    draining: bool = False
    in_flight: int = 0
    stopping: bool = False
    stops: int = 0
    watchers: set = field(default_factory=set)
    fixed_table: RouteTable | None = None
    notes: tuple = ()

    def __post_init__(self):
        self.recent = Recent(self.clock.ns)
        self.recent_requests = recent.Recent()

    def add(self, model, versions, *, revision=1, **document):
        """Add a model. `versions` is {version: state}, of ready, loading or failed; those that are not given
        a state are only declared.
        """
        found = {v: DesiredVersion(v, f"/m/{v}/model.onnx", "f") for v in versions}
        document = {"version_policy": {"all": True}, **document}
        desired = DesiredModel(validate(document, model=model, versions=list(versions)), found, revision)
        served = self.served.setdefault(model, ServedModel(model))
        served.desired = desired
        for version, state in versions.items():
            if state is not None:
                record = self._record(desired, version, state)
                served.records[record.key] = record
                served.wanted[version] = record.key
        build_route(served)
        return served

    def _record(self, desired, version, state):
        record = VersionRecord(
            desired.document.model, version, f"key-{version}", desired.versions[version], load_ns=2 * 10**9
        )
        instance = InstanceRecord(Placed("cpu", "onnxruntime", 2, 1, {}), InstanceState(state))
        record.instances["cpu"] = instance
        if state == "failed":
            instance.reason = "no such operator"
        if state == "ready":
            record.loaded["cpu"] = LoadedInstance(1, SIGNATURE, Probed(True, ""), (), 1, 4096)
            account = self.accounts.open(record.model, version)
            record.servable = Servable(
                desired.document, version, desired.revision, SIGNATURE, account, batchable=True
            )
        return record

    def run(self, model, version, requests, total_ns=2_000_000):
        """Have requests succeed, all in one batch."""
        account = self.accounts.open(model, version)
        account.record_batch([1] * requests, [0] * requests, [total_ns] * requests, 1, 1, 1, "full", "cpu", 1)

    @property
    def table(self):
        return self.fixed_table or RouteTable(
            {name: build_route(served) for name, served in self.served.items()}
        )

    def view(self):
        return View(
            Identity("gw", "n1", "1.2.3", 42, "native", 0),
            self.accounts,
            self.served,
            lambda: self.table,
            lambda: self.slots,
            lambda: self.configuration,
            lambda: {"grpc": "127.0.0.1:8001"},
            lambda: self.ready,
            lambda: self.draining,
            lambda: self.in_flight,
            self.recent_requests,
            lambda: self.notes,
        )

    def _drain(self, begin):
        if self.stopping and not begin:
            raise Stopping
        self.draining = begin

    def _stop(self):
        self.stopping = True
        self.stops += 1

    def controls(self):
        return Controls(self._drain, self._stop)

    # the part of a catalog that tells of transitions
    def watch(self, call):
        self.watchers.add(call)

    def unwatch(self, call):
        self.watchers.discard(call)

    def changed(self):
        for watcher in list(self.watchers):
            watcher()


@pytest.fixture
def world():
    return World()
