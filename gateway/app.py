"""The process: builds every part, owns the listeners and the tasks, and ends in order.

What ends it: SIGTERM or SIGINT (drain, exit 0; a second one ends it at once), the end of the process that has
started it, a successor that serves, a listener that cannot be opened, and a defect in one of its own tasks.
Workers, models and requests never do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from gateway.admin.view import Controls, Identity, Stopping
from gateway.administration import Administration
from gateway.admission.admission import Draining
from gateway.binding import certificate_files, grpc_listening, state_path
from gateway.clock import MonotonicClock
from gateway.config.ledger import Ledger
from gateway.config.status import Presence, SlotReport
from gateway.config.store.opening import describe, open_store
from gateway.config.store.store import StoreError
from gateway.control import HandOver, Ready
from gateway.diagnosis import Diagnosis
from gateway.discovery import default_slots, installed_runtimes
from gateway.estate import leave_to_supervisor
from gateway.frontend.choice import FrontendUnavailable, build_frontend, choose_frontend, find_native
from gateway.frontend.listening import ListenerInvalid
from gateway.frontend.servicers import build_servicers
from gateway.gauges import read_gauges, read_process, read_triton
from gateway.http.endpoints import Endpoints
from gateway.http.server import HttpServer
from gateway.lifecycle.directory import DirectorySource, DirectoryUnreadable
from gateway.lifecycle.following import Following
from gateway.lifecycle.guarding import Guarding
from gateway.lifecycle.last_good import LastGood
from gateway.lifecycle.reporting import TTL_S
from gateway.lifecycle.repository import Repository
from gateway.lifecycle.store_source import StoreSource
from gateway.membership import Membership
from gateway.ports import Ports
from gateway.serving import Serving
from gateway.succession import Succession
from gateway.supervisor import HANDLED
from gateway.telemetry import logs
from gateway.telemetry.collector import TraceSettingsInvalid
from gateway.telemetry.gpus import Gpus
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.metric_push import MetricExportInvalid, MetricPush
from gateway.telemetry.prometheus import Exposition
from gateway.workerpool.remote.trust import Trust, TrustInvalid
from gateway.workerpool.rendezvous import FolderUnsafe
from gateway.workerpool.slot import SlotInvalid, parse_slot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gateway.config.store.store import Store
    from gateway.control import Control, Message
    from gateway.estate import Estate
    from gateway.lifecycle.following import Source
    from gateway.settings import GatewaySettings
    from gateway.workerpool.slot import Slot

log = logging.getLogger(__name__)

_COLLECT_EVERY_OBJECTS = 50_000

OnReady = Callable[[Ready], None]
# What a user can put right: their messages are enough.
CANNOT_START = (
    DirectoryUnreadable,
    StoreError,
    TrustInvalid,
    FolderUnsafe,
    FrontendUnavailable,
    ListenerInvalid,
    MetricExportInvalid,
    SlotInvalid,
    TraceSettingsInvalid,
    OSError,
)


class Gateway:
    """One gateway process. `run` serves until `stop` or `hand_over`; `on_ready` is called once, when requests
    may come. `machine` are the processors that slots may name.
    """

    def __init__(
        self, settings: GatewaySettings, slots: Sequence[Slot], machine: Iterable[int], on_ready: OnReady
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self._told = False  # to stop
        self._handing_over = False
        self._now = asyncio.Event()  # stop at once
        self._ready = asyncio.Event()
        self._listening = asyncio.Event()
        loop = asyncio.get_running_loop()
        clock = self._clock = MonotonicClock()
        self._node = settings.node or socket.gethostname()
        runtimes = self._runtimes = installed_runtimes()
        if settings.store is not None:
            describe(settings.store)  # what is wrong with it is said before anything is started
        self._directory = None if settings.models is None else DirectorySource(settings.models)
        self._following: Following | None = None
        self._membership: Membership | None = None
        self._store: Store | None = None
        self._guarding: Guarding | None = None
        serving = self._serving = Serving(
            loop,
            clock,
            settings,
            slots,
            runtimes,
            self._on_change,
            node=self._node,
            stopping=self._stopping.is_set,
        )
        self._diagnosis = Diagnosis(serving.catalog)
        inherited = settings.inherited
        self._waits = inherited is not None and inherited.waits
        self._administration = Administration(
            settings,
            clock,
            serving,
            self._diagnosis,
            Controls(self._refuse, self.stop),
            replace=self._waits,
        )
        self._trust = Trust(
            settings.worker_ca,
            settings.worker_certificate,
            settings.worker_key,
            frozenset(settings.worker_identities),
            settings.insecure_workers,
        )
        self._trust.check()
        self._choice = choose_frontend(settings.frontend, find_native(), inherits=inherited is not None)
        if self._choice.reason:
            log.warning("the front end in Python serves, not the native one: %s", self._choice.reason)
        self._ports: Ports | None = None  # those that another process can go on with
        self._succession: Succession | None = None
        if inherited is not None:
            self._ports = Ports.of(inherited.listen_fds, (inherited.http_fd,))
        elif self._choice.name == "native":
            self._ports = Ports.open(settings)
            self._succession = Succession(
                settings,
                self._ports,
                lambda: self._serving.pool.folder,
                tuple(sorted(machine)),
                self.hand_over,
            )
        servicers = build_servicers(serving.catalog, serving.accounts, self._repository, serving.access)
        listening = grpc_listening(settings, self._ports)
        self._frontend = build_frontend(self._choice.name, loop, clock, servicers, listening)
        self._exposition = Exposition(serving.accounts, triton_names=settings.triton_metrics)
        self._http = HttpServer(
            Endpoints(
                self._diagnosis.readiness,
                self._exposition.steps,
                self._exposition.content_type,
                self._exposition.alternatives,
            )
        )
        read_gauges(
            serving.accounts,
            serving.reconciler,
            serving.dataplane,
            serving.pool,
            self._frontend,
            self._diagnosis.source,
        )
        read_process(
            serving.accounts,
            version=package_version("crossgate"),
            front_end=self._choice.name,
            draining=lambda: serving.admission.draining,
            rejected=lambda: serving.reconciler.rejected,
            spans=lambda: serving.tracing.span_counts,
        )
        if settings.triton_metrics:
            read_triton(serving.accounts, serving.reconciler)
        self._instruments = Instruments(
            loop,
            clock,
            serving.accounts,
            certificates=certificate_files(settings),
            gpus=Gpus.find(),
            push=MetricPush.from_environment(
                self._exposition.collection, service_version=package_version("crossgate")
            ),
            triton_names=settings.triton_metrics,
        )

    def stop(self) -> None:
        """Drain and end; called again, end at once."""
        if self._told:
            self._now.set()
        self._told = True
        self._stopping.set()
        if self._succession is not None:
            self._succession.pass_signal()

    def hand_over(self) -> None:
        """Another process serves: refuse nothing, finish what is here, and end."""
        if not self._stopping.is_set():
            self._handing_over = self._serving.pool.keep_folder = True
            self._stopping.set()

    def restart(self) -> None:
        """Start a successor with the same settings, and hand over to it when it serves."""
        if self._succession is not None:
            self._succession.ask()
        else:
            log.error("only the native front end can hand over to a successor")

    def hear(self, message: Message | None) -> None:
        """The process that has started this one says something, or has ended."""
        if message is None:
            self.stop()
        elif isinstance(message, HandOver):
            self.hand_over()

    @property
    def estate(self) -> Estate | None:
        """What is left to the successor's supervisor, None where there is no successor."""
        return self._succession.estate if self._succession is not None else None

    async def run(self) -> None:
        """Serve until stopped.

        Raises:
            OSError: a listener cannot be opened.
            ListenerInvalid: its TLS files cannot be used.
            ExceptionGroup: with one of these, in a process that waits to listen.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self._settings.inherited is None:
            loop.add_signal_handler(signal.SIGUSR2, self.restart)
        self._frontend.start(self._serving.dataplane.on_calls, self._serving.dataplane.on_cancels)
        try:
            async with AsyncExitStack() as held:
                await self._open_source(held)
                if not self._waits:
                    await self._listen()
                await self._serve()
        finally:
            await self._administration.close()
            await self._frontend.close()
            await self._http.close()
            await self._instruments.close()
            self._serving.dataplane.close()
            await asyncio.to_thread(self._serving.tracing.close)
            if self._ports is not None and self.estate is None:
                self._ports.remove()

    async def _open_source(self, held: AsyncExitStack) -> None:
        """Open the directory or the store that this gateway follows."""
        settings = self._settings
        source: Source
        if settings.store is None:
            assert self._directory is not None, "there is a source"
            source = self._directory
        else:
            last_good = LastGood(state_path(settings), describe(settings.store))
            # a file that has gone is no empty store, for whoever has served from it
            known = await asyncio.to_thread(last_good.knows_documents)
            store = await held.enter_async_context(open_store(settings.store, create=not known))
            source = StoreSource(store, last_good)
            self._guarding = Guarding(store, self._serving.access, last_good)
            self._membership = Membership(store, self._clock, settings, self._serving, self._trust)
            self._store = store
        self._diagnosis.membership = self._membership
        self._following = self._diagnosis.following = Following(
            source,
            self._serving.reconciler,
            self._serving.tracing,
            self._clock,
            log_level=settings.log_level,
            guarding=self._guarding,
        )

    async def _serve(self) -> None:
        """Serve until told to stop, then drain."""
        assert self._following is not None, "the source is open"
        async with self._serving.pool, asyncio.TaskGroup() as tasks:
            owned = [
                tasks.create_task(self._following.run(), name="source"),
                tasks.create_task(self._following.notice(), name="source's presence"),
                tasks.create_task(self._serving.reconciler.run(), name="reconciler"),
                tasks.create_task(self._announce(), name="announce"),
                tasks.create_task(self._administer(), name="admin"),
                tasks.create_task(self._instruments.run(), name="instruments"),
            ]
            if self._membership is not None:
                owned.append(tasks.create_task(self._membership.discover(self._name), name="discovery"))
                owned.append(tasks.create_task(self._take_part(self._membership), name="membership"))
            if self._guarding is not None:
                owned.append(tasks.create_task(self._guarding.run(), name="access"))
            succession = None
            if self._succession is not None:
                succession = tasks.create_task(self._succession.run(), name="succession")
            await self._stopping.wait()
            if succession is not None:
                succession.cancel()  # too late for one
            await self._drain()
            for task in owned:
                task.cancel()

    async def _take_part(self, membership: Membership) -> None:
        """Be one of the store's gateways while this one listens."""
        await self._listening.wait()
        presence = Presence(
            self._name,
            self._node,
            package_version("crossgate"),
            self._listens_at[0],
            next(iter(self._administration.listens_at), ""),
            os.getpid(),
            datetime.now(UTC).isoformat(timespec="seconds"),
            slots=tuple(
                SlotReport(slot.name, str(slot.device), slot.capacity, slot.cpus)
                for slot in self._serving.pool.slots.values()
                if not slot.node
            ),
            runtimes=tuple(self._runtimes),
        )
        # the one before goes under the same name, and takes it back
        await membership.take_part(presence, report_after_s=TTL_S / 3 if self._waits else 0.0)

    def _repository(self) -> Repository:
        ledger = Ledger(self._store) if self._store is not None else None
        return Repository(ledger, self._serving.reconciler, self._serving.catalog, self._name)

    @property
    def _name(self) -> str:
        """This gateway's name, once it listens or has its ports."""
        if self._settings.name:
            return self._settings.name
        if self._ports is not None:
            return f"{self._node}-{self._ports.http[0].getsockname()[1]}"
        return f"{self._node}-{self._listens_at[1].rpartition(':')[2]}"

    async def _listen(self) -> None:
        settings = self._settings
        sock = self._ports.http[0].dup() if self._ports is not None else None
        http = await self._http.start(settings.host, settings.http_port, sock)
        self._listens_at = await self._frontend.listen(), f"{http.host}:{http.port}"
        identity = Identity(
            self._name,
            self._node,
            package_version("crossgate"),
            os.getpid(),
            self._choice.name,
            int(self._started * 1e9),
        )
        grpc, http_at = self._listens_at
        await self._administration.open(identity, {"grpc": grpc, "http": http_at})
        self._listening.set()

    async def _administer(self) -> None:
        await self._listening.wait()
        await self._administration.run()

    def _refuse(self, refuse: bool) -> None:
        """Refuse new requests, or take them again. Raises Stopping where it is too late for that."""
        if self._stopping.is_set():
            if not refuse:
                raise Stopping
            return
        self._serving.admission.draining = refuse
        self._serving.catalog.changed()
        if self._membership is not None:
            self._membership.reporter.changed()

    async def _announce(self) -> None:
        await self._ready.wait()
        if self._waits:
            await self._listen()
        grpc, http = self._listens_at
        took_s = time.monotonic() - self._started
        self._on_ready(Ready(grpc, http, len(self._serving.catalog.models()), self._choice.name, took_s))

    async def _drain(self) -> None:
        """What is in flight finishes. Health says NOT_SERVING and new work is refused, unless another process
        serves: then only new connections are left to that one.
        """
        log.info("draining: %d requests in flight", self._serving.dataplane.unsettled)
        if self._handing_over:
            await self._http.close()
        else:
            self._serving.admission.draining = True
            self._serving.catalog.changed()
            if self._membership is not None:
                self._membership.reporter.changed()
        drained = asyncio.ensure_future(
            self._frontend.drain(self._settings.drain_s, hand_over=self._handing_over)
        )
        at_once = asyncio.ensure_future(self._now.wait())
        await asyncio.wait((drained, at_once), return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not drained.done():
            drained.cancel()
        self._serving.dataplane.fail_all(Draining())

    def _on_change(self, models: Collection[str]) -> None:
        self._serving.catalog.changed()
        if self._membership is not None:
            self._membership.reporter.changed(models)
        if not self._ready.is_set() and self._serving.catalog.ready()[0]:
            self._ready.set()


def serve(settings: GatewaySettings, on_ready: OnReady, control: Control | None = None) -> None:
    """Run a gateway in this process until a signal ends it, or who is at the other end of `control`. Does not
    return where another gateway has followed: then the process goes on as its supervisor.

    Raises:
        CANNOT_START: a setting is wrong, or a listener cannot be opened.
        ExceptionGroup: with one of these, in a process that waits to listen.
    """
    import uvloop

    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if settings.inherited is not None:
        os.sched_setaffinity(0, settings.inherited.machine)
    machine = os.sched_getaffinity(0)
    texts = settings.slots or default_slots(installed_runtimes())
    slots = [parse_slot(text, machine) for text in texts if settings.slots != ("none",)]
    if settings.cpus:
        os.sched_setaffinity(0, settings.cpus)  # workers set their own, from all that the machine gave
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logs.configure(settings.log_level)
    # requests leave no cycles: a collection for every 700 objects only looks at what is in flight, again and
    # again
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY_OBJECTS, 20, 20)
    sys.setswitchinterval(0.0005)  # the exporter's thread must not hold up the loop for 5 ms

    async def main() -> None:
        gateway = Gateway(settings, slots, machine, on_ready)
        if control is not None:
            control.listen(asyncio.get_running_loop(), gateway.hear)
        await gateway.run()
        if gateway.estate is not None:
            signal.pthread_sigmask(
                signal.SIG_BLOCK, HANDLED
            )  # what comes from now on waits for the supervisor
            await asyncio.sleep(0.01)  # what came before is heard here
            leave_to_supervisor(gateway.estate)

    uvloop.run(main())
