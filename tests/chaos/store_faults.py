"""What can happen to an etcd, and to those who follow it. A fault is over when its coroutine returns: then
everything runs and can be reached again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stored_state import StoredState

from gateway.config.keys import gateway_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from configuration_rig import Rig


def killed(for_s: float) -> Callable[[Rig], Awaitable[None]]:
    async def fault(rig: Rig) -> None:
        await asyncio.sleep(1.0)
        await rig.etcd.stop()
        await asyncio.sleep(for_s)
        await rig.etcd.start()

    return fault


def frozen(for_s: float) -> Callable[[Rig], Awaitable[None]]:
    async def fault(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        rig.etcd.freeze()
        try:
            await asyncio.sleep(for_s)
        finally:
            rig.etcd.thaw()

    return fault


def partitioned(for_s: float) -> Callable[[Rig], Awaitable[None]]:
    """Nothing arrives, and nobody is told; changes go on behind it."""

    async def fault(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        for relay in rig.relays:
            relay.hold()
        try:
            await asyncio.sleep(for_s)
        finally:
            for relay in rig.relays:
                relay.release()

    return fault


def packets_dropped(for_s: float) -> Callable[[Rig], Awaitable[None]]:
    """As `partitioned`, by the network between them."""

    async def fault(rig: Rig) -> None:
        assert rig.cable is not None, "it is networked"
        await asyncio.sleep(0.5)
        rig.cable.swallow()
        try:
            await asyncio.sleep(for_s)
        finally:
            rig.cable.let_through()

    return fault


def compacted_while_cut_off(for_s: float) -> Callable[[Rig], Awaitable[None]]:
    async def fault(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        for relay in rig.relays:
            await relay.cut()
        await asyncio.sleep(for_s)
        await rig.etcd.compact()
        for relay in rig.relays:
            await relay.mend()

    return fault


async def gateway_restarted_while_etcd_is_away(rig: Rig) -> None:
    """It serves its last good state before it hears of etcd again."""
    gateway = rig.gateways[0]
    await asyncio.sleep(1.0)
    await rig.etcd.stop()
    await rig.pause_requests(gateway)
    await asyncio.to_thread(gateway.kill)
    await asyncio.to_thread(gateway.start)
    await rig.resume_requests(gateway)
    await asyncio.sleep(1.0)
    assert all(page.configuration.from_disk for page in await asyncio.to_thread(gateway.status))
    await rig.etcd.start()


async def leases_lost(rig: Rig) -> None:
    """etcd forgets that the gateways are there; they notice when they renew."""
    await asyncio.sleep(1.0)
    before = await asyncio.to_thread(StoredState.read, rig.etcd)
    leases = [before.entries[gateway_key(gateway.name)].lease for gateway in rig.gateways]
    for lease in leases:
        await asyncio.to_thread(rig.etcd.post, "lease/revoke", {"ID": str(lease)})
    after = await asyncio.to_thread(StoredState.read, rig.etcd)
    assert not {entry.lease for entry in after.entries.values()} & set(leases)
