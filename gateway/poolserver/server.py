"""The process of a pool without a gateway: builds every part, and ends in order.

What ends it: SIGTERM or SIGINT (the slots are deregistered, gateways asked to leave, what runs finishes; a
second signal ends it at once), and a defect in one of its own tasks. Workers, gateways and the store never
do.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.clock import MonotonicClock
from gateway.config.registration import Registration
from gateway.config.store.opening import open_store
from gateway.config.store.store import StoreInvalid, StoreRefused
from gateway.discovery import default_slots, installed_runtimes
from gateway.frontend.listening import ListenerInvalid
from gateway.poolserver.endpoint import GrpcEndpoint, UnixEndpoint
from gateway.poolserver.errors import FolderTaken, PoolInvalid
from gateway.poolserver.listening import PoolListening
from gateway.poolserver.registrar import Registrar
from gateway.poolserver.workers import PoolWorkers
from gateway.telemetry import logs
from gateway.workerpool.pool import Pool
from gateway.workerpool.remote.way import Description
from gateway.workerpool.rendezvous import FolderUnsafe, private_folder
from gateway.workerpool.slot import SlotInvalid, parse_slot
from wire.frames import PROTOCOL_MAX, PROTOCOL_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.poolserver.endpoint import Endpoint
    from gateway.poolserver.settings import PoolSettings
    from gateway.workerpool.remote.address import PoolAddress
    from gateway.workerpool.slot import Slot

log = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# What a user can put right: their messages are enough.
CANNOT_START = (
    FolderTaken,
    FolderUnsafe,
    ListenerInvalid,
    PoolInvalid,
    SlotInvalid,
    StoreInvalid,
    StoreRefused,
    OSError,
)


@dataclass(frozen=True, slots=True)
class PoolReady:
    """Gateways may connect."""

    node: str
    slots: tuple[str, ...]
    listen: str
    took_s: float

    def __str__(self) -> str:
        slots = ";".join(self.slots)
        return f"ready node={self.node} slots={slots} listen={self.listen} in {self.took_s:.1f} s"


class PoolServer:
    """One pool process. `run` serves until `stop`; `on_ready` is called once."""

    def __init__(
        self,
        settings: PoolSettings,
        listening: PoolListening,
        slots: Sequence[Slot],
        runtimes: Sequence[str],
        on_ready: Callable[[PoolReady], None],
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._slots = slots
        self._runtimes = tuple(sorted(runtimes))
        self._on_ready = on_ready
        self._started = time.monotonic()
        self._clock = MonotonicClock()
        self._stopping = asyncio.Event()
        self._now = asyncio.Event()  # stop at once
        self._description = Description(
            settings.node, package_version("crossgate"), tuple(slot.name for slot in slots)
        )

    def stop(self) -> None:
        """Drain and end; called again, end at once."""
        if self._stopping.is_set():
            self._now.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped. Raises CANNOT_START."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        settings = self._settings
        folder = settings.folder or self._listening.default_folder()
        async with AsyncExitStack() as stack:
            if folder is not None:
                stack.callback(os.close, _hold(folder))
            pool = Pool(
                self._slots,
                self._clock,
                gateway=f"pool of {settings.node}",
                segment_bytes=settings.segment_bytes,
                budget_bytes=settings.budget_bytes,
                grace_s=settings.grace_s,
                folder=folder,
                for_others=True,
            )
            workers = PoolWorkers(pool)
            endpoint = self._endpoint()
            stack.callback(endpoint.close)
            store = await stack.enter_async_context(open_store(settings.store))
            registrar = Registrar(store, self._registrations(endpoint.address), settings.lease_s, self._clock)
            await registrar.check()
            await stack.enter_async_context(pool)
            async with endpoint.serving(pool, workers), asyncio.TaskGroup() as tasks:
                registering = tasks.create_task(registrar.run(), name="registrar")
                took_s = time.monotonic() - self._started
                slots = tuple(slot.name for slot in self._slots)
                self._on_ready(PoolReady(settings.node, slots, str(endpoint.address), took_s))
                await self._stopping.wait()
                registering.cancel()
                await asyncio.wait((registering,))  # first of all nobody new comes
                await self._drain(endpoint)

    async def _drain(self, endpoint: Endpoint) -> None:
        log.info("draining: %d links", endpoint.gateways)
        draining = asyncio.ensure_future(endpoint.drain())
        at_once = asyncio.ensure_future(self._now.wait())
        await asyncio.wait(
            (draining, at_once), timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not draining.done():
            log.warning("%d links are cut", endpoint.gateways)
        for task in (draining, at_once):
            task.cancel()
        await asyncio.gather(draining, at_once, return_exceptions=True)

    def _registrations(self, address: PoolAddress) -> list[Registration]:
        return [
            Registration(
                node=self._settings.node,
                slot=slot.name,
                device=str(slot.device),
                capacity=slot.capacity,
                address=str(address),
                pid=os.getpid(),
                release=self._description.release,
                protocol_min=PROTOCOL_MIN,
                protocol_max=PROTOCOL_MAX,
                cpus=slot.cpus,
                identity=self._listening.identity,
                runtimes=self._runtimes,
                memory_bytes=slot.memory_bytes,
                machine=_BOOT.read_text().strip(),
            )
            for slot in self._slots
        ]

    def _endpoint(self) -> Endpoint:
        """Raises OSError, ListenerInvalid."""
        if self._listening.address.path:
            return UnixEndpoint(self._listening.address, self._description)
        return GrpcEndpoint(self._settings, self._listening, self._description, self._clock)


def _hold(folder: Path) -> int:
    """Return a descriptor that keeps the folder for this pool. Raises FolderTaken, FolderUnsafe, OSError."""
    path = private_folder(folder) / "pool"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise FolderTaken(folder) from error
    return descriptor


def serve(settings: PoolSettings, on_ready: Callable[[PoolReady], None]) -> None:
    """Run a pool in this process until a signal ends it. Raises CANNOT_START."""
    import uvloop

    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # what it says beside that is no line of our log
    logs.configure(settings.log_level)
    runtimes = installed_runtimes()
    machine = os.sched_getaffinity(0)
    slots = [parse_slot(text, machine) for text in settings.slots or default_slots(runtimes)]
    listening = PoolListening.of(settings)

    async def main() -> None:
        await PoolServer(settings, listening, slots, sorted(runtimes), on_ready).run()

    uvloop.run(main())
