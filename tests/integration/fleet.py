"""Pools and gateways in processes of their own that find each other in one store."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from checked_load import FACTOR
from live_pool import LivePool
from slow_affine import slow_affine
from store_gateway import StoreGateway

from crossgate.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from protos import admin_pb2

SLOT = "cpu,capacity=2"
_LIMIT_S = 60.0


class FleetGateway(StoreGateway):
    """`crossgate serve --store`; without slots of its own unless it is given some."""

    def __init__(self, url: str, folder: Path, name: str, *arguments: str, slots: Sequence[str]) -> None:
        folder.mkdir()
        self.admin = f"unix:{folder}/admin.sock"
        own = ("--grpc-port=0", "--http-port=0", f"--name={name}", f"--admin={self.admin}")
        super().__init__(
            url, folder / "gateway.log", folder / "state", slots=slots, arguments=(*own, *arguments)
        )

    def status(self) -> dict[str, Any]:
        """What `crossgate status --json` prints."""
        command = [sys.executable, "-P", "-m", "crossgate.cli", "status", "--json", "-g", self.admin]
        result = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def slots(self) -> dict[str, admin_pb2.SlotStatus]:
        """Return {slot name: what the admin service says of it}."""
        with AdminClient(self.admin) as client:
            return {slot.slot: slot for page in client.pages() for slot in page.slots}

    def slot_states(self) -> dict[str, str]:
        return {name: each.state for name, each in self.slots().items()}

    def memory(self, models: Sequence[str]) -> dict[str, int]:
        """Return {model: bytes} of those that are loaded."""
        with AdminClient(self.admin) as client:
            found = [each for page in client.pages(models) for each in page.models]
        return {
            each.model: version.memory_bytes
            for each in found
            for version in each.versions
            if version.state == "READY"
        }

    def instances(self, model: str) -> dict[str, str]:
        """Return {slot name: state} of a model's instances."""
        with AdminClient(self.admin) as client:
            found = [each for page in client.pages([model]) for each in page.models]
        return {
            instance.slot: instance.state
            for each in found
            for version in each.versions
            for instance in version.instances
        }


class Fleet(contextlib.ExitStack):
    """Leaving it ends all of them. `gateways` are those that were started, for a failure's report."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__()
        self._folder = folder
        self._numbers = itertools.count()
        self._pools: dict[str, LivePool] = {}  # {node: the last one}
        self.url = url
        self.gateways: list[FleetGateway] = []

    def pool(
        self, node: str, *arguments: str, listen: str = "grpc://127.0.0.1:0", slots: Sequence[str] = (SLOT,)
    ) -> LivePool:
        """Start a pool; one that follows another of the same node finds its folder."""
        folder = self._folder / f"pool-{node}"
        folder.mkdir(exist_ok=True)
        pool = LivePool(folder, listen, *arguments, node=node, slots=slots, store=self.url)
        self._pools[node] = self.enter_context(pool)
        return pool

    def end_pool(self, node: str) -> None:
        """End the pool of a node that was started last."""
        self._pools[node].__exit__()

    def gateway(
        self, name: str, *arguments: str, frontend: str = "auto", slots: Sequence[str] = ("none",)
    ) -> FleetGateway:
        folder = self._folder / f"{name}-{next(self._numbers)}"
        gateway = FleetGateway(self.url, folder, name, f"--frontend={frontend}", *arguments, slots=slots)
        self.gateways.append(gateway)
        return self.enter_context(gateway)

    def document(self, *, factor: float = FACTOR, node: str = "*", **parts: Any) -> dict[str, Any]:
        """Return a document of one version, y = factor x + 1, which is a file that every pool can read."""
        file = self._folder / f"affine-{factor:g}.onnx"
        file.write_bytes(slow_affine(factor))
        instance = {"runtime": "onnxruntime", "device": "cpu", "threads": 1, "where": {"node": node}}
        return {
            "versions": {"1": {"source": file.as_uri()}},
            "instances": [{**instance, "count": 2}],
            "deadline": {"default_ms": 30_000},
            **parts,
        }
