"""The process: builds every part, owns the listeners and the tasks, and ends in order.

What ends it: SIGTERM or SIGINT (drain, exit 0; a second one ends it at once), the end of the process that has
started it, a successor that serves, a listener that cannot be opened, and a defect in one of its own tasks.
Workers, models and requests never do.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
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
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.admin.address import default_path
from gateway.admin.building import build_view
from gateway.admin.server import AdminListening, AdminServer
from gateway.admin.view import Controls, Identity, Stopping
from gateway.admission.access import Access
from gateway.admission.admission import Admission, Draining
from gateway.clock import MonotonicClock
from gateway.config.ledger import Ledger
from gateway.config.status import Presence, SlotReport
from gateway.config.store.election import Election
from gateway.config.store.opening import describe, open_store
from gateway.config.store.store import StoreError
from gateway.control import HandOver, Ready
from gateway.dataplane import Dataplane
from gateway.discovery import default_slots, installed_runtimes
from gateway.estate import leave_to_supervisor
from gateway.frontend.choice import FrontendUnavailable, build_frontend, choose_frontend, find_native
from gateway.frontend.listening import ListenerInvalid, Listening, Tls
from gateway.frontend.servicers import build_servicers
from gateway.gauges import read_gauges
from gateway.http.endpoints import Endpoints, Readiness
from gateway.http.server import HttpServer
from gateway.lifecycle.catalog import Catalog
from gateway.lifecycle.directory import DirectorySource, DirectoryUnreadable
from gateway.lifecycle.expiries import Expiries
from gateway.lifecycle.following import Following, SourceState
from gateway.lifecycle.guarding import Guarding
from gateway.lifecycle.last_good import LastGood
from gateway.lifecycle.reconciler import Reconciler
from gateway.lifecycle.reporting import TTL_S, Reporter
from gateway.lifecycle.repository import Repository
from gateway.lifecycle.store_source import StoreSource
from gateway.ports import Ports
from gateway.succession import Succession
from gateway.supervisor import HANDLED
from gateway.telemetry import logs
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.prometheus import Exposition
from gateway.telemetry.tracing import Tracing, UnsupportedExporter
from gateway.workerpool.pool import Pool
from gateway.workerpool.remote.discovery import Discovery
from gateway.workerpool.remote.terms import Terms
from gateway.workerpool.remote.trust import Trust, TrustInvalid
from gateway.workerpool.remote.ways import Ways
from gateway.workerpool.rendezvous import FolderUnsafe
from gateway.workerpool.slot import SlotInvalid, parse_slot
from gateway.workerpool.worker import WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gateway.config.store.store import Store
    from gateway.control import Control, Message
    from gateway.estate import Estate
    from gateway.lifecycle.following import Source
    from gateway.settings import GatewaySettings
    from gateway.workerpool.seam import Link, SlotWorker
    from gateway.workerpool.slot import Slot
    from wire.frames import Hello

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
    SlotInvalid,
    UnsupportedExporter,
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
        self._reporter: Reporter | None = None
        self._admin: AdminServer | None = None
        self._admin_at: list[str] = []
        self._store: Store | None = None
        self._guarding: Guarding | None = None
        self._discovery: Discovery | None = None
        self._accounts = Accounts()
        self._tracing = Tracing.from_environment(
            clock, default_ratio=settings.trace_ratio, service_version=package_version("crossgate")
        )
        self._admission = Admission(settings.max_held_bytes)
        self._access = Access()
        self._pool = Pool(
            slots,
            clock,
            segment_bytes=settings.segment_bytes,
            budget_bytes=settings.budget_bytes,
            folder=settings.pool_folder,
        )
        self._dataplane = Dataplane(
            loop,
            clock,
            self._admission,
            self._access,
            self._accounts,
            self._tracing,
            kill_worker=lambda slot, reason: self._pool.workers[slot].kill(reason),
            quarantine=lambda servable, reason: self._reconciler.quarantine(servable, reason),
            demand=lambda model, version: self._reconciler.demand(model, version),
        )
        self._reconciler = Reconciler(
            clock,
            self._pool,
            self._dataplane,
            self._accounts,
            runtimes,
            self._on_change,
            node=self._node,
        )
        self.catalog = Catalog(self._reconciler, lambda: self._admission.draining)
        self._pool.observe(
            WorkerEvents(
                self._on_up,
                self._on_down,
                lambda worker, batch: self._dataplane.on_begun(worker.slot.name, batch),
                lambda worker, batch, done: self._dataplane.on_done(worker.slot.name, batch, done),
                lambda worker, credits: self._dataplane.on_credits(worker.slot.name, credits),
            ),
            on_slots=self._on_slots,
        )
        self._trust = Trust(
            settings.worker_ca,
            settings.worker_certificate,
            settings.worker_key,
            frozenset(settings.worker_identities),
            settings.insecure_workers,
        )
        self._trust.check()
        inherited = settings.inherited
        self._choice = choose_frontend(settings.frontend, find_native(), inherits=inherited is not None)
        if self._choice.reason:
            log.warning("the front end in Python serves, not the native one: %s", self._choice.reason)
        self._waits = inherited is not None and inherited.waits
        self._ports: Ports | None = None  # those that another process can go on with
        self._succession: Succession | None = None
        if inherited is not None:
            self._ports = Ports.of(inherited.listen_fds, (inherited.http_fd,))
        elif self._choice.name == "native":
            self._ports = Ports.open(settings)
            self._succession = Succession(
                settings, self._ports, lambda: self._pool.folder, tuple(sorted(machine)), self.hand_over
            )
        servicers = build_servicers(self.catalog, self._accounts, self._repository, self._access)
        listening = _listening(settings, self._ports)
        self._frontend = build_frontend(self._choice.name, loop, clock, servicers, listening)
        self._exposition = Exposition(self._accounts)
        self._http = HttpServer(
            Endpoints(self._readiness, self._exposition.steps, self._exposition.content_type)
        )
        read_gauges(
            self._accounts,
            self._reconciler,
            self._dataplane,
            self._pool,
            self._frontend,
            self._source_state,
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
            self._handing_over = self._pool.keep_folder = True
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
        self._frontend.start(self._dataplane.on_calls, self._dataplane.on_cancels)
        try:
            async with AsyncExitStack() as held:
                await self._open_source(held)
                if not self._waits:
                    await self._listen()
                await self._serve()
        finally:
            if self._admin is not None:
                await self._admin.close()
            await self._frontend.close()
            await self._http.close()
            self._dataplane.close()
            await asyncio.to_thread(self._tracing.close)
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
            last_good = LastGood(_state_path(settings), describe(settings.store))
            # a file that has gone is no empty store, for whoever has served from it
            known = await asyncio.to_thread(last_good.knows_documents)
            store = await held.enter_async_context(open_store(settings.store, create=not known))
            source = StoreSource(store, last_good)
            self._guarding = Guarding(store, self._access, last_good)
            self._reporter = Reporter(store, self._clock, self._reconciler, self.catalog)
            self._store = store
        self._following = Following(
            source,
            self._reconciler,
            self._tracing,
            self._clock,
            log_level=settings.log_level,
            guarding=self._guarding,
        )

    async def _serve(self) -> None:
        """Serve until told to stop, then drain."""
        assert self._following is not None, "the source is open"
        async with self._pool, asyncio.TaskGroup() as tasks:
            owned = [
                tasks.create_task(self._following.run(), name="source"),
                tasks.create_task(self._reconciler.run(), name="reconciler"),
                tasks.create_task(self._announce(), name="announce"),
                tasks.create_task(self._administer(), name="admin"),
            ]
            if self._reporter is not None:
                owned.append(tasks.create_task(self._report(self._reporter), name="reporter"))
            if self._store is not None:
                owned.append(tasks.create_task(self._campaign(self._store), name="election"))
                owned.append(tasks.create_task(self._discover(self._store), name="discovery"))
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

    async def _report(self, reporter: Reporter) -> None:
        """Tell the store about this gateway while it listens."""
        await self._listening.wait()
        if self._waits:
            await asyncio.sleep(TTL_S / 3)  # the one before goes under the same name, and takes it back
        await reporter.run(
            Presence(
                self._name,
                self._node,
                package_version("crossgate"),
                self._listens_at[0],
                self._admin_at[0] if self._admin_at else "",
                os.getpid(),
                datetime.now(UTC).isoformat(timespec="seconds"),
                slots=tuple(
                    SlotReport(slot.name, str(slot.device), slot.capacity, slot.cpus)
                    for slot in self._pool.slots.values()
                    if not slot.node
                ),
                runtimes=tuple(self._runtimes),
            )
        )

    def _repository(self) -> Repository:
        ledger = Ledger(self._store) if self._store is not None else None
        return Repository(ledger, self._reconciler, self.catalog, self._name)

    async def _discover(self, store: Store) -> None:
        """Use the slots of pools that register in the store."""
        await self._listening.wait()
        terms = Terms(self._name, self._settings.segment_bytes, self._settings.budget_bytes)
        ways = Ways(self._trust, terms, self._clock, self._pool)
        self._discovery = Discovery(store, self._pool, self._clock, ways)
        await self._discovery.run()

    async def _campaign(self, store: Store) -> None:
        """Lead what one gateway does for all, if it is this one."""
        await self._listening.wait()
        await Election(store, "expiries", self._name, Expiries(self._name).run).run()

    @property
    def _name(self) -> str:
        """This gateway's name, once it listens."""
        return self._settings.name or f"{self._node}-{self._listens_at[1].rpartition(':')[2]}"

    async def _listen(self) -> None:
        settings = self._settings
        sock = self._ports.http[0].dup() if self._ports is not None else None
        http = await self._http.start(settings.host, settings.http_port, sock)
        self._listens_at = await self._frontend.listen(), f"{http.host}:{http.port}"
        await self._open_admin()
        self._listening.set()

    async def _open_admin(self) -> None:
        """Raises what `CANNOT_START` names, unless nobody asked for the place where it listens."""
        asked = self._settings.admin
        if asked == "off":
            return
        admin = self._build_admin()
        try:
            self._admin_at = await admin.start()
        except (OSError, FolderUnsafe) as error:
            await admin.close()
            if asked:
                raise
            log.warning("there is no admin service: %s; --admin says where to listen", error)
        else:
            self._admin = admin

    async def _administer(self) -> None:
        await self._listening.wait()
        if self._admin is not None:
            await self._admin.run()

    def _build_admin(self) -> AdminServer:
        grpc, http = self._listens_at
        identity = Identity(
            self._name,
            self._node,
            package_version("crossgate"),
            os.getpid(),
            self._choice.name,
            int(self._started * 1e9),
        )
        view = build_view(
            identity,
            self._reconciler,
            self._dataplane,
            self._pool,
            self._accounts,
            self.catalog,
            self._source_state,
            lambda: {"grpc": grpc, "http": http, "admin": ", ".join(self._admin_at)},
        )
        listening = _admin_listening(self._settings, self._name, replace=self._waits)
        controls = Controls(self._refuse, self.stop)
        return AdminServer(view, controls, self.catalog, self._clock, listening)

    def _refuse(self, refuse: bool) -> None:
        """Refuse new requests, or take them again. Raises Stopping where it is too late for that."""
        if self._stopping.is_set():
            if not refuse:
                raise Stopping
            return
        self._admission.draining = refuse
        self.catalog.changed()
        if self._reporter is not None:
            self._reporter.changed()

    async def _announce(self) -> None:
        await self._ready.wait()
        if self._waits:
            await self._listen()
        grpc, http = self._listens_at
        took_s = time.monotonic() - self._started
        self._on_ready(Ready(grpc, http, len(self.catalog.models()), self._choice.name, took_s))

    async def _drain(self) -> None:
        """What is in flight finishes. Health says NOT_SERVING and new work is refused, unless another process
        serves: then only new connections are left to that one.
        """
        log.info("draining: %d requests in flight", self._dataplane.unsettled)
        if self._handing_over:
            await self._http.close()
        else:
            self._admission.draining = True
            self.catalog.changed()
            if self._reporter is not None:
                self._reporter.changed()
        drained = asyncio.ensure_future(
            self._frontend.drain(self._settings.drain_s, hand_over=self._handing_over)
        )
        at_once = asyncio.ensure_future(self._now.wait())
        await asyncio.wait((drained, at_once), return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if not drained.done():
            drained.cancel()
        self._dataplane.fail_all(Draining())

    def _on_change(self, models: Collection[str]) -> None:
        self.catalog.changed()
        if self._reporter is not None:
            self._reporter.changed(models)
        if not self._ready.is_set() and self.catalog.ready()[0]:
            self._ready.set()

    def _on_up(self, worker: SlotWorker, link: Link, hello: Hello) -> None:
        slot = worker.slot
        log.info("worker %s is up, pid %d", slot.name, hello.pid)
        self._dataplane.slot_up(slot.name, str(slot.device), link, hello.capacity, self._pool.segment_bytes)
        self._reconciler.worker_up(slot.name, link)

    def _on_down(self, worker: SlotWorker, reason: str) -> None:
        if not self._stopping.is_set():
            log.error("worker %s is lost: %s", worker.slot.name, reason)
        self._reconciler.worker_down(worker.slot.name, reason)
        self._dataplane.slot_down(worker.slot.name, reason, way_lost=worker.way_lost)

    def _on_slots(self) -> None:
        self._dataplane.forget_slots(self._pool.slots)
        self._reconciler.slots_changed()

    def _readiness(self) -> Readiness:
        state = self._source_state()
        notes = [f"{what}: its document is not valid: {why}" for what, why in state.problems.items()]
        if state.away:
            serving = "the last good state on disk" if state.from_disk else "what was heard last"
            notes.insert(
                0, f"{state.where} has been away for {state.away_s:.0f} s: {state.away}; {serving} is served"
            )
        if self._discovery is not None:
            notes += [f"{key}: {problem}" for key, problem in self._discovery.problems.items()]
            if self._discovery.problem:
                notes.append(f"pools elsewhere are not followed: {self._discovery.problem}")
        if self._reporter is not None and self._reporter.problem:
            notes.append(f"the state of this gateway is not in the store: {self._reporter.problem}")
        return Readiness(*self.catalog.ready(), notes)

    def _source_state(self) -> SourceState:
        return self._following.state if self._following is not None else SourceState("")


def _admin_listening(settings: GatewaySettings, name: str, *, replace: bool) -> AdminListening:
    """Raises ListenerInvalid."""
    asked = settings.admin or f"unix:{default_path(name)}"
    if asked.startswith("unix:/"):
        return AdminListening(unix=Path(asked.removeprefix("unix:")), replace=replace)
    host, colon, port = asked.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ListenerInvalid(f"--admin {asked!r} is none of unix:/path, host:port and off")
    tls = None
    if settings.admin_tls_certificate is not None and settings.admin_tls_key is not None:
        tls = Tls(settings.admin_tls_certificate, settings.admin_tls_key, settings.admin_tls_client_ca)
    return AdminListening(host=host.strip("[]"), port=int(port), tls=tls, replace=replace)


def _state_path(settings: GatewaySettings) -> Path:
    """Return where the last good state of the store is kept."""
    assert settings.store is not None, "only a store needs it"
    folder = settings.state_folder or Path(
        os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "crossgate"
    )
    return folder / f"last-good-{hashlib.sha256(describe(settings.store).encode()).hexdigest()[:12]}.db"


def _listening(settings: GatewaySettings, ports: Ports | None) -> Listening:
    """The front end gets copies of the ports, which it closes."""
    fds = () if ports is None else tuple(sock.dup().detach() for sock in ports.grpc)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = Tls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return Listening(
        settings.host,
        settings.grpc_port,
        settings.max_message_bytes,
        settings.max_held_bytes,
        unix=settings.grpc_unix if ports is None else None,
        fds=fds,
        tls=tls,
        max_concurrent_streams=settings.max_concurrent_streams,
        max_connection_age_s=settings.max_connection_age_s,
        keepalive_s=settings.keepalive_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
    )


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
