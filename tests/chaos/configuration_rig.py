"""Two gateways that follow one etcd, each over a network of its own, somebody who changes things all the
time, and requests all the time: for seeing what a fault does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from random import Random
from typing import TYPE_CHECKING, Self

import numpy as np
from applied_state import differences, wrong_answers
from constant_requests import ConstantRequests
from etcd_process import EtcdProcess
from fault_report import Row
from holding_relay import HoldingRelay
from mortal_gateway import MortalGateway
from networked_etcd import NetworkedEtcd
from onnx_models import affine
from random_changes import RandomChanges
from recorded_changes import flaws_of_history
from stored_state import StoredState, put_raw

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.etcd.store import open_etcd
from gateway.config.store.etcd.timing import Timing
from gateway.config.store.store import StoreAway

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from network_namespaces import Cable

STEADY = ("steady-0", "steady-1", "steady-2")
PASSING = ("passing-0", "passing-1")
MARKER = "marker"
VERSIONS = ("1", "2", "3", "4")
CONVERGED_WITHIN_S = 5.0
START_S = 20.0  # for everything to be loaded
_POLL_S = 0.03
# Of the one who writes: it is not to wait long for an etcd that is away.
_HASTY = Timing(try_s=0.5, call_s=1.5, commit_s=1.0, quiet_s=0.4, ask_s=0.2, dead_s=1.2, longest_wait_s=0.3)


class Rig:
    """`async with` starts all of it. Gateways reach etcd through `relays`, or where it is `networked` through
    `cable`; whoever writes does so directly.
    """

    def __init__(self, folder: Path, seed: int, *, networked: bool = False) -> None:
        self.seed = seed
        self.cable: Cable | None = None
        self.relays: list[HoldingRelay] = []
        self.random = Random(seed)
        self._folder = folder
        self._networked = networked
        self._held = contextlib.AsyncExitStack()
        self._marks = 0
        self._requests: dict[str, ConstantRequests] = {}  # {gateway: those that run now}
        self._over: list[ConstantRequests] = []

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as held:
            urls = await self._start_etcd(held)
            store = await held.enter_async_context(
                open_etcd(EtcdAddress.parse(self.etcd.url), _HASTY, Random(self.seed))
            )
            self._sources = self._write_versions()
            self.changes = RandomChanges(store, self._sources, STEADY, PASSING, self.random)
            await self.changes.begin()
            await self._mark()
            self.gateways = [
                MortalGateway(name, url, self._folder) for name, url in zip("ab", urls, strict=True)
            ]
            for gateway in self.gateways:  # in a thread: the relays are served by this one
                held.push_async_callback(asyncio.to_thread, gateway.stop)
                await asyncio.to_thread(gateway.start)
            flaws, _ = await self._converged(time.monotonic(), START_S)
            assert not flaws, flaws
            self._held = held.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._held.aclose()

    async def _start_etcd(self, held: contextlib.AsyncExitStack) -> list[str]:
        """Return where each gateway reaches it."""
        if self._networked:
            self.etcd = etcd = held.enter_context(NetworkedEtcd(self._folder))
            self.cable = etcd.to_gateways
            return [etcd.url_for_gateways] * 2
        self.etcd = held.enter_context(EtcdProcess(self._folder))
        self.relays = [await held.enter_async_context(HoldingRelay(self.etcd.port)) for _ in range(2)]
        return [relay.url for relay in self.relays]

    def _write_versions(self) -> Mapping[str, str]:
        """Version n answers n times what it is sent, and one more."""
        urls = {}
        for version in VERSIONS:
            path = self._folder / f"affine-{version}.onnx"
            path.write_bytes(affine(int(version)))
            urls[version] = path.as_uri()
        return urls

    # What happens to it.

    async def row(self, name: str, fault: Callable[[Rig], Awaitable[None]]) -> Row:
        """Let a fault happen under load and changes, and compare afterwards."""
        await self._settle()
        await self._converged(time.monotonic(), START_S)
        before = self.changes.outcomes.copy()
        self._over = []
        stop = asyncio.Event()
        writer = asyncio.create_task(self.changes.run(stop), name="changes")
        try:
            for gateway in self.gateways:
                await self.resume_requests(gateway)
            await fault(self)
            ended_s = time.monotonic()
        finally:
            stop.set()
            await writer
        await self._mark()
        flaws, converged_s = await self._converged(ended_s, CONVERGED_WITHIN_S)
        for gateway in self.gateways:
            await self.pause_requests(gateway)
        flaws += await self._settled_flaws()
        made = self.changes.outcomes - before
        failed = [flaw for requests in self._over for flaw in requests.told()]
        backwards = [flaw for flaw in failed if " answers after " in flaw]
        return Row(
            fault=name,
            seed=self.seed,
            made=made["applied"],
            unclear=made["unclear"],
            refused=made["refused"],
            away=made["away"],
            answered=sum(requests.answered for requests in self._over),
            not_there=sum(requests.not_there for requests in self._over),
            revisions_seen=sum(requests.revisions_seen for requests in self._over),
            backwards=len(backwards),
            failed=tuple(failed),
            converged_s=converged_s,
            flaws=tuple(flaws),
        )

    async def _settle(self) -> None:
        """Its connection may be down yet, after the last fault."""
        async with asyncio.timeout(START_S):
            while True:
                try:
                    return await self.changes.settled()
                except StoreAway:
                    await asyncio.sleep(_POLL_S)

    async def pause_requests(self, gateway: MortalGateway) -> None:
        requests = self._requests.pop(gateway.name)
        await requests.__aexit__()
        self._over.append(requests)

    async def resume_requests(self, gateway: MortalGateway) -> None:
        requests = ConstantRequests(gateway.life, (*STEADY, MARKER), PASSING)
        self._requests[gateway.name] = await requests.__aenter__()

    # What is to be seen of it.

    async def _mark(self) -> None:
        """Change a document as soon as etcd takes it, so that there is something to converge to."""
        self._marks += 1
        document = {
            "model": MARKER,
            "versions": {"1": {"source": self._sources["1"]}},
            "traffic": {"split": {"1": 1}},
            "instances": [{"runtime": "onnxruntime", "device": "cpu", "threads": 1}],
            "batching": {"max_queue_size": 1000 + self._marks, "batchable": True},
            "warm_up": {"runs": 0},
        }
        key, value = f"models/{MARKER}", json.dumps(document).encode()
        self._marked = await asyncio.to_thread(put_raw, self.etcd, key, value)

    async def _converged(self, since_s: float, within_s: float) -> tuple[list[str], float | None]:
        """Wait until both gateways serve what is stored, and answer with the mark's revision; return what
        differs, and how long it took.
        """
        while True:
            state = await asyncio.to_thread(StoredState.read, self.etcd)
            flaws = []
            for gateway in self.gateways:
                found = await asyncio.to_thread(differences, gateway, state, self.changes.good)
                found += await self._answers_the_mark(gateway)
                flaws += [f"{gateway.name}: {flaw}" for flaw in found]
            took_s = time.monotonic() - since_s
            if not flaws:
                return [], took_s
            if took_s > within_s:
                return flaws, None
            await asyncio.sleep(_POLL_S)

    async def _answers_the_mark(self, gateway: MortalGateway) -> list[str]:
        async with gateway.life.async_client() as client:
            result = await client.infer(MARKER, {"x": np.ones((1, 4), np.float32)})
        if (result.revision or 0) < self._marked:
            return [f"{MARKER} answers with revision {result.revision}, not {self._marked}"]
        return []

    async def _settled_flaws(self) -> list[str]:
        """Ask for everything, while what is stored stays the same; check the history."""
        state = await asyncio.to_thread(StoredState.read, self.etcd)
        for _ in range(5):  # overrides may still end
            flaws = [
                f"{gateway.name}: {flaw}"
                for gateway in self.gateways
                for flaw in await wrong_answers(gateway, state)
            ]
            before, state = state, await asyncio.to_thread(StoredState.read, self.etcd)
            if state.expected() == before.expected():
                break
        return flaws + flaws_of_history(self.changes.committed, state)
