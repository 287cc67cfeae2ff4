"""Several gateway processes behind one port: `serve --processes N`; or one that has followed another.

Guarantees: a process that ends is started again while the others serve on. On SIGUSR2 they are replaced one
after the other, each only once its successor is ready. SIGTERM and SIGINT reach all of them. When this
process is gone, however it ended, so are they and their workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.child import Child, ChildFailed
from gateway.control import Ready
from gateway.ports import Ports
from gateway.process import adopt_orphans
from gateway.telemetry import logs
from gateway.workerpool.backoff import Backoff
from gateway.workerpool.rendezvous import private_folder, workers_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
# How long a process may take until it serves, before the one that it is to replace gives it up.
READY_LIMIT_S = 300.0
# What a process may take to end beyond the time for requests in flight.
_ENDING_S = 10.0
# A worker outlives a gateway that was killed by its grace period.
_WORKERS_S = 3.0


@dataclass(eq=False)
class Seat:
    """One of the processes: where it answers HTTP, and who sits there now."""

    http: socket.socket
    child: Child
    backoff: Backoff = field(default_factory=Backoff)
    renewal: asyncio.Future[bool] | None = None  # somebody waits for a successor to take over
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Owns the children. `ports` and the pool's `folder` belong to whoever makes it."""

    def __init__(
        self, settings: GatewaySettings, ports: Ports, folder: Path, machine: tuple[int, ...]
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._folder = folder
        self._machine = machine
        self._children: set[Child] = set()  # all that have not been waited for
        self._tasks: set[asyncio.Task[None]] = set()
        self._seats: list[Seat] = []
        self._told = False  # the children know that they are to end
        self._stopping = asyncio.Event()
        self._restart_asked = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; called again, end at once."""
        self._stopping.set()
        self._told = True
        for child in self._children:
            child.process.send(signal.SIGTERM)

    def adopt(self, child: Child, *, told: bool) -> None:
        """Take a child over that serves, and may have been told to end."""
        self._children.add(child)
        self._seats.append(Seat(self._ports.http[0], child))
        if told:
            self._told = True
            self._stopping.set()

    def restart(self) -> None:
        """Replace the children, one after the other."""
        self._restart_asked.set()

    async def run(self, on_ready: Callable[[Ready], None] | None = None) -> int:
        """Serve until stopped, and return the exit status. `on_ready` is told once, when all serve.

        Raises:
            ChildFailed: one of them could not start.
            OSError: there are too few processes or descriptors.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGUSR2, self.restart)
        adopt_orphans()  # workers stay in sight when a gateway that has started them is gone
        loop.add_signal_handler(signal.SIGCHLD, self._reap_others)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        try:
            if not self._seats:
                await self._start_all(on_ready)
            async with asyncio.TaskGroup() as tasks:
                for seat in self._seats:
                    self._own(tasks.create_task(self._keep(seat, tasks)))
                self._own(tasks.create_task(self._follow_restarts()))
                await self._stopping.wait()
                for task in list(self._tasks):
                    task.cancel()
        finally:
            good = await self._end()
        return 0 if good else 1

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_all(self, on_ready: Callable[[Ready], None] | None) -> None:
        began = time.monotonic()
        self._seats = [Seat(http, self._start(http, waits=False)) for http in self._ports.http]
        serving = asyncio.gather(*[seat.child.wait_ready() for seat in self._seats])
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done():
            serving.cancel()
            return
        if self._stopping.is_set():
            serving.exception()
            return
        ready = serving.result()
        if on_ready is not None:
            first, http = ready[0], ",".join(each.http for each in ready)
            took_s = time.monotonic() - began
            on_ready(Ready(first.grpc, http, first.models, first.frontend, took_s, len(ready)))

    def _start(self, http: socket.socket, *, waits: bool) -> Child:
        grpc = self._ports.grpc
        child = Child.start(self._settings, grpc, http, self._folder, self._machine, waits=waits)
        self._children.add(child)
        return child

    async def _keep(self, seat: Seat, tasks: asyncio.TaskGroup) -> None:
        """Keep somebody in a seat; what happens there is decided here alone."""
        while True:
            began = time.monotonic()
            while not await self._ended(seat):
                if (old := await self._renew(seat)) is not None:
                    self._own(tasks.create_task(self._see_off(old)))
            process, why = seat.child.process, seat.child.failure
            log.error("gateway process %d %s%s", process.pid, process.how_it_ended, why and f": {why}")
            self._forget(seat.child)
            seat.child = await self._start_again(seat, time.monotonic() - began)

    async def _start_again(self, seat: Seat, good_s: float) -> Child:
        while True:
            await asyncio.sleep(seat.backoff.after_s(good_s))
            others_serve = any(other.child.ready for other in self._seats if other is not seat)
            try:
                return self._start(seat.http, waits=others_serve)
            except OSError as error:
                log.error("a gateway process cannot be started: %s", error)
                good_s = 0.0

    async def _ended(self, seat: Seat) -> bool:
        """Wait until the child of a seat has ended, or a successor is asked for: then false."""
        ended = asyncio.ensure_future(seat.child.process.wait())
        asked = asyncio.ensure_future(seat.asked.wait())
        try:
            await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
            return ended.done()
        finally:
            ended.cancel()
            asked.cancel()

    async def _renew(self, seat: Seat) -> Child | None:
        """Put a successor into a seat and return who sat there; None where the new one fails."""
        seat.asked.clear()
        renewal, seat.renewal = seat.renewal, None
        old, replaced = seat.child, None
        try:
            seat.child = await self._successor(seat)
            replaced = old
            log.info("process %d follows process %d", seat.child.process.pid, old.process.pid)
        except (ChildFailed, OSError) as error:
            log.error("restart in place: %s; process %d serves on", error, old.process.pid)
        if renewal is not None and not renewal.done():
            renewal.set_result(replaced is not None)
        return replaced

    async def _successor(self, seat: Seat) -> Child:
        """Raises ChildFailed, OSError."""
        child = self._start(seat.http, waits=True)
        try:
            await child.wait_ready(READY_LIMIT_S)
        except ChildFailed:
            child.process.send(signal.SIGTERM)
            await child.end(_ENDING_S)
            self._forget(child)
            raise
        return child

    async def _see_off(self, child: Child) -> None:
        """Let a child that was replaced finish what it has."""
        child.hand_over()
        await child.end(self._settings.drain_s + _ENDING_S)
        self._forget(child)

    async def _follow_restarts(self) -> None:
        while True:
            await self._restart_asked.wait()
            self._restart_asked.clear()
            for seat in self._seats:
                seat.renewal = asyncio.get_running_loop().create_future()
                seat.asked.set()
                if not await seat.renewal:
                    break
            else:
                log.info("restarted in place")

    def _forget(self, child: Child) -> None:
        self._children.discard(child)
        child.close()
        self._reap_others()

    def _reap_others(self) -> None:
        """Reap workers of gateways that are gone."""
        ours = {child.process.pid for child in self._children}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in ours:
                return  # whoever waits for it calls this again
            os.waitpid(ended.si_pid, 0)

    async def _end(self) -> bool:
        """End all children, then what they may have left; false when one did not end well."""
        if not self._told:
            self.stop()
        limit_s = self._settings.drain_s + _ENDING_S
        children = list(self._children)
        await asyncio.gather(*[child.end(limit_s) for child in children])
        # one that was about to end, or about to begin, does not handle the signal
        good = all(child.process.status in (0, -signal.SIGTERM) for child in children)
        for child in children:
            self._forget(child)
        if not good and self._settings.pool_folder is None:  # else others may need them
            await self._end_workers()
        return good

    async def _end_workers(self) -> None:
        """Workers end by themselves, unless they hang and who would have killed them was killed itself."""
        for worker in workers_of(self._folder):
            if not await worker.wait(_WORKERS_S):
                worker.send(signal.SIGKILL)
                await worker.wait(_ENDING_S)
            worker.close()


def supervise(settings: GatewaySettings, on_ready: Callable[[Ready], None]) -> int:
    """Run `settings.processes` gateways until a signal ends them, and return the exit status.

    Raises:
        OSError: a listener cannot be opened, or the pool's folder not be made.
        FolderUnsafe: others could write to that folder.
        ChildFailed: a gateway could not start, with what it says.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    logs.configure(settings.log_level)
    machine = tuple(sorted(os.sched_getaffinity(0)))
    folder = settings.pool_folder or Path(tempfile.mkdtemp(prefix="crossgate-"))
    try:
        private_folder(folder)
        ports = Ports.open(settings)
        try:
            return asyncio.run(_supervised(settings, ports, folder, machine, on_ready))
        finally:
            ports.remove()
    finally:
        if settings.pool_folder is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _supervised(
    settings: GatewaySettings,
    ports: Ports,
    folder: Path,
    machine: tuple[int, ...],
    on_ready: Callable[[Ready], None],
) -> int:
    return await Supervisor(settings, ports, folder, machine).run(on_ready)
