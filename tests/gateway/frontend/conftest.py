"""A catalog whose content tests set."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gateway.config.document import Batching, ModelDocument
from gateway.lifecycle.catalog import VersionStatus
from gateway.routing.table import ModelNotReady, UnknownModel, UnknownVersion
from gateway.servable import Servable
from gateway.telemetry.accounts import Accounts
from wire.frames import Signature, TensorSpec


@dataclass
class FakeCatalog:
    """`served` is {model: {version: state}}; what READY versions are is in `servables`."""

    served: dict[str, dict[str, str]] = field(default_factory=dict)
    servables: dict[tuple[str, str], Servable] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    draining: bool = False
    is_ready: bool = True
    watchers: set = field(default_factory=set)

    def changed(self):
        for watcher in list(self.watchers):
            watcher()

    def watch(self, watcher):
        self.watchers.add(watcher)

    def unwatch(self, watcher):
        self.watchers.discard(watcher)

    def models(self):
        return sorted(self.served)

    def knows(self, model):
        return model in self.served

    def versions(self, model):
        if model not in self.served:
            raise UnknownModel(model, self.models())
        return [
            VersionStatus(v, state, "" if state == "READY" else f"it is {state}")
            for v, state in self.served[model].items()
        ]

    def memory_bytes(self, model, version):
        return {"cpu": 4096} if version == "1" else {"cuda:1": 8192}

    def servable(self, model, version=""):
        states = {status.version: status.state for status in self.versions(model)}
        version = self.labels.get(version, version)
        if version and version not in states:
            raise UnknownVersion(model, version, sorted(states), sorted(self.labels))
        ready = [v for v in states if states[v] == "READY" and version in ("", v)]
        if not ready:
            raise ModelNotReady(model, version, "it is not READY")
        return self.servables[model, max(ready, key=int)]

    def ready(self):
        return self.is_ready and not self.draining, []


@pytest.fixture
def accounts():
    return Accounts()


@pytest.fixture
def catalog(accounts):
    """The model `m`, whose versions 1 and 2 serve and whose version 3 loads."""
    catalog = FakeCatalog(
        {"m": {"1": "READY", "2": "READY", "3": "LOADING"}}, labels={"new": "3", "old": "1"}
    )
    document = ModelDocument("m", batching=Batching(max_batch_size=8, max_queue_size=16))
    for version in ("1", "2"):
        signature = Signature(
            (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("t", "BYTES", (-1, -1))),
            (TensorSpec("y", "FP16", (-1, 2)),),
            "onnxruntime_onnx",
        )
        account = accounts.open("m", version)
        catalog.servables["m", version] = Servable(
            document, version, 1, signature, account, batchable=version == "1"
        )
    return catalog
