"""Two gateways and the one of them that leads: it ends overrides in time, and while it stands still the other
one does. What it still wants to write when it goes on is refused by the store itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

import msgspec
import pytest
from etcd_process import EtcdProcess
from mortal_gateway import MortalGateway
from store_gateway import loopback

from gateway.config.change import DocumentChange
from gateway.config.keys import election_key, override_key, status_key
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.status import ModelReport
from gateway.config.store.opening import open_store
from gateway.config.store.store import Delete
from gateway.config.transaction import Author

pytestmark = pytest.mark.slow

SEAT = election_key("expiries")
MODEL = model_name("m")
AUTHOR = Author("a test", "to see it end")
LIMIT_S = 15.0
LATE_S = 2.0  # how late an override may end


class Scene:
    """Two gateways, of which `leader` was started first, and the store that they follow."""

    def __init__(self, store, leader, other):
        self.store = store
        self.ledger = Ledger(store)
        self.leader = leader
        self.other = other

    async def until(self, condition, limit_s=LIMIT_S):
        """Return what the condition gives, once that is true."""
        until_s = time.monotonic() + limit_s
        while not (value := await condition()):
            assert time.monotonic() < until_s, f"not within {limit_s:g} s"
            await asyncio.sleep(0.02)
        return value

    async def leads(self):
        entry = await self.store.get(SEAT)
        return entry.value.decode() if entry is not None else ""

    async def lead(self, gateway):
        async def it_leads():
            return await self.leads() == gateway.name

        await self.until(it_leads)

    async def override(self, default_ms, for_s):
        """Return the key of a new override, and until when it is to be in force."""
        made = await self.ledger.override(MODEL, {"deadline": {"default_ms": default_ms}}, for_s, AUTHOR)
        return override_key(MODEL.name, made.id), time.monotonic() + for_s

    async def ended(self, key, limit_s=LIMIT_S):
        async def gone():
            return await self.store.get(key) is None

        await self.until(gone, limit_s)

    async def expiries(self):
        """Return who ended overrides, the first first."""
        history = [each.entry for each in await self.ledger.history(MODEL)]
        return [entry.by for entry in sorted(history, key=_generation) if entry.action == "expiry"]

    async def converged(self):
        """Return when both gateways have what the last change of the model made of it."""
        last = max(each.revision for each in await self.ledger.history(MODEL))

        async def alike():
            entries = [
                await self.store.get(status_key(gateway.name, MODEL.name))
                for gateway in (self.leader, self.other)
            ]
            reports = [msgspec.json.decode(entry.value, type=ModelReport) for entry in entries if entry]
            return [report.revision for report in reports] == [last, last]

        await self.until(alike)


def _generation(entry):
    return entry.generation


def freeze(gateway):
    os.kill(gateway.life.pid, signal.SIGSTOP)


def thaw(gateway):
    os.kill(gateway.life.pid, signal.SIGCONT)


@pytest.fixture
async def scene(tmp_path):
    async with contextlib.AsyncExitStack() as held:
        etcd = held.enter_context(EtcdProcess(tmp_path))
        store = await held.enter_async_context(open_store(etcd.url))
        document = loopback(tmp_path / "model")
        await Ledger(store).commit([DocumentChange(MODEL, document, None, "apply")], AUTHOR)
        gateways = [MortalGateway(name, etcd.url, tmp_path) for name in ("first", "second")]
        scene = Scene(store, *gateways)
        for gateway in gateways:
            held.callback(gateway.stop)
            await asyncio.to_thread(gateway.start)
            held.callback(thaw, gateway)  # else it could not end
            await scene.lead(gateways[0])
        yield scene


async def test_another_ends_what_a_frozen_leader_cannot(scene):
    key, until_s = await scene.override(77, for_s=12.0)
    freeze(scene.leader)
    await scene.lead(scene.other)  # once the seat's lease is over
    assert time.monotonic() < until_s
    await scene.ended(key)
    assert -LATE_S < time.monotonic() - until_s < LATE_S
    thaw(scene.leader)

    async def steps_down():
        return f"does not lead {SEAT} any more" in scene.leader.log_text()

    await scene.until(steps_down)
    await scene.converged()
    assert await scene.expiries() == ["gateway second"]
    assert await scene.leads() == "second"


async def test_a_leader_that_missed_its_deposition_is_refused_by_the_store(scene):
    """Its lease still lives when it goes on: nothing tells it but the refusal."""
    freeze(scene.leader)
    await scene.store.commit([Delete(SEAT)])
    await scene.lead(scene.other)
    freeze(scene.other)
    key, until_s = await scene.override(77, for_s=1.0)
    thaw(scene.leader)

    async def is_refused():
        return f"{SEAT} is not this process's any more; its write was refused" in scene.leader.log_text()

    await scene.until(is_refused, limit_s=5.0)
    assert time.monotonic() > until_s - LATE_S
    assert await scene.store.get(key) is not None
    assert await scene.expiries() == []
    thaw(scene.other)
    await scene.ended(key, limit_s=5.0)
    await scene.converged()
    assert await scene.expiries() == ["gateway second"]
