"""The worker of one slot under supervision: found or started, connected to, watched, and started again with
backoff when it ends.

Several gateways may share it. All of them see it end, one of them starts it again and the others find it. It
outlives a gateway that dies by its grace period, so that one that starts again finds its models loaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.process import Process
from gateway.workerpool.backoff import Backoff
from gateway.workerpool.link import LinkEvents, WorkerLink, WorkerLost
from gateway.workerpool.rendezvous import Rendezvous
from wire.frames import PROTOCOL_MAX, PROTOCOL_MIN, ProtocolError, common_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.workerpool.copying import Copying
    from gateway.workerpool.seam import Link, SlotWorker
    from gateway.workerpool.slot import Slot
    from wire.frames import Done, Hello

_GREETING_TIMEOUT_S = 20.0
_GOODBYE_TIMEOUT_S = 2.0
_ENDING_S = 0.5
_TERMINATION_S = 2.0
_UP_LIMIT_S = 1.0


class WorkerEvents(NamedTuple):
    """What a worker tells its owner; called on the loop. `on_down` follows every `on_up` but the
    last one when the pool ends, with the reason."""

    on_up: Callable[[SlotWorker, Link, Hello], None]
    on_down: Callable[[SlotWorker, str], None]
    on_begun: Callable[[SlotWorker, int], None]
    on_done: Callable[[SlotWorker, int, Done], None]
    on_credits: Callable[[SlotWorker, int], None]


class Worker:
    """With `for_others` this process runs no batches there: it takes no credits, the worker's models do not
    depend on it, and the worker ends with it.
    """

    def __init__(
        self,
        slot: Slot,
        events: WorkerEvents,
        clock: Clock,
        *,
        folder: Path,
        gateway: str,
        segment_bytes: int,
        budget_bytes: int,
        grace_s: float,
        copying: Copying | None = None,
        for_others: bool = False,
    ) -> None:
        self.slot = slot
        self.restarts = 0  # how often this gateway started it again
        self.pid: int | None = None
        self.down_reason = "starting"
        self.way_lost = False  # a link to a worker of our own is lost with it
        self._events = events
        self._clock = clock
        self._gateway = gateway
        self._copying = copying
        self._for_others = for_others
        self._segment_bytes = segment_bytes
        self._budget_bytes = budget_bytes
        self._settings = {
            "name": slot.name,
            "device": str(slot.device),
            "capacity": slot.capacity,
            "cpus": slot.cpus,
            "grace_s": grace_s,
            "segment_bytes": segment_bytes,
            "budget_bytes": budget_bytes,
        }
        self._rendezvous = Rendezvous(folder, self._key())
        self._backoff = Backoff()
        self._process: Process | None = None
        self._link: WorkerLink | None = None
        self._found = False  # it ran before this gateway came
        self._killed = ""
        self._was_up = False

    def _key(self) -> str:
        """Return what names the worker's files: a gateway with other settings starts another worker.

        A digest, because a socket's path may have 107 characters and a slot's name with a list of CPUs has
        more.
        """
        kind = [self._settings, self.slot.cuda_visible_devices, PROTOCOL_MIN, PROTOCOL_MAX]
        return hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]

    async def supervise(self) -> None:
        """Keep the worker running until cancelled, then leave it."""
        try:
            while True:
                began_ns = self._clock.now_ns()
                try:
                    self.down_reason = await self._live_once()
                except OSError as error:  # no process, no memory, no descriptors: these may pass
                    self.down_reason = f"worker {self.slot.name} cannot be started: {error}"
                good_s = (self._clock.now_ns() - began_ns) / 1e9
                # a worker that can start and is ended by requests must not be kept from serving others for
                # long
                limit_s = _UP_LIMIT_S if self._was_up else None
                # one that was about to end when it was found is no failure
                if self._was_up or not self._found:
                    await asyncio.sleep(self._backoff.after_s(good_s, limit_s=limit_s))
        finally:
            await self._leave()

    async def _live_once(self) -> str:
        """Find or start the worker and serve its link until it is lost; return why it ended."""
        self._killed, self._found, self._was_up = "", False, False
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self._rendezvous.held():
            link = self._link = self._open(self._reach(), lost)
        assert self._process is not None, "it was reached"
        try:
            if self._for_others:
                hello = await link.hear(_GREETING_TIMEOUT_S)
                common_version((PROTOCOL_MIN, PROTOCOL_MAX), (hello.protocol_min, hello.protocol_max))
            else:
                hello = await link.greet(_GREETING_TIMEOUT_S)
            self._check(hello)
            self._events.on_up(self, link, hello)
            self._was_up = True
            reason = await lost
        except (WorkerLost, ProtocolError, TimeoutError) as error:
            reason = str(error) or "no greeting from the worker"
        self._link = None
        link.close("the gateway closes the link")
        reason = await self._reason_of_end(self._process, reason)  # also reaps it
        if self._was_up:
            self._events.on_down(self, reason)
        return reason

    def _reach(self) -> socket.socket:
        """Return a connection to the worker that runs, else to a new one. Raises OSError."""
        process = self._rendezvous.process()
        if process is not None:
            try:
                sock = _connected(self._rendezvous.path)
            except OSError:  # it is ending
                process.close()
            else:
                self._become(process, found=True)
                return sock
        return self._start()

    def _start(self) -> socket.socket:
        """Start a worker whose listening socket is open already, and connected to: it never waits for its
        first gateway.
        """
        path = self._rendezvous.path
        path.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "workers"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": self.slot.cuda_visible_devices}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            listener.bind(str(path))
            listener.listen(16)
            descriptor = listener.fileno()
            settings = json.dumps({**self._settings, "listen_fd": descriptor})
            sock = _connected(path)
            try:
                process = Process.start([*command, settings], [descriptor], environment)
            except OSError:
                sock.close()
                raise
        self._rendezvous.note(process)
        if self.pid is not None:
            self.restarts += 1
        self._become(process, found=False)
        return sock

    def connect(self) -> socket.socket:
        """Return another connection to the worker, for a gateway. Raises OSError: it is not there."""
        return _connected(self._rendezvous.path)

    def _become(self, process: Process, *, found: bool) -> None:
        self._process, self._found, self.pid = process, found, process.pid

    def _open(self, sock: socket.socket, lost: asyncio.Future[str]) -> WorkerLink:
        return WorkerLink(
            sock,
            asyncio.get_running_loop(),
            LinkEvents(
                lambda batch: self._events.on_begun(self, batch),
                lambda batch, done: self._events.on_done(self, batch, done),
                lambda credits: self._events.on_credits(self, credits),
                lambda reason: None if lost.done() else lost.set_result(reason),
            ),
            name=self._gateway,
            segment_bytes=self._segment_bytes,
            budget_bytes=self._budget_bytes,
            copying=self._copying,
        )

    def _check(self, hello: Hello) -> None:
        """Raises ProtocolError when this is not the slot's worker."""
        slot = self.slot
        if (hello.name, hello.device, hello.capacity) != (slot.name, str(slot.device), slot.capacity):
            raise ProtocolError(f"slot {slot.name} met the worker of {hello.name}")

    async def _reason_of_end(self, process: Process, reason: str) -> str:
        """Return how the process ended, or, when it still runs, end it for the reason of its link."""
        if await process.wait(_ENDING_S):
            reason = f"worker {self.slot.name} {process.how_it_ended}"
        else:
            process.send(signal.SIGKILL)
            await process.wait(_TERMINATION_S)
        process.close()
        self._process = None
        return self._killed or reason

    @property
    def resident_bytes(self) -> int:
        """The process's resident memory, 0 while there is none."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def kill(self, reason: str) -> None:
        """Kill a worker that hangs; it is lost with this reason, and started again."""
        if self._process is not None and not self._process.ended:
            self._killed = reason
            self._process.send(signal.SIGKILL)

    async def _leave(self) -> None:
        """Say goodbye. The worker ends unless other gateways need it that may keep it; one that does not
        answer is killed: it hangs for all of them.
        """
        process, link = self._process, self._link
        if process is None:
            return
        stays = link is not None and await link.leave(_GOODBYE_TIMEOUT_S)
        if self._for_others:
            process.send(signal.SIGTERM)
            stays = False
        if not stays and not await process.wait(_TERMINATION_S):
            process.send(signal.SIGKILL)
            await process.wait(_TERMINATION_S)
        process.close()


def _connected(path: Path) -> socket.socket:
    """Return a connection. Raises OSError: nobody listens, or too many wait."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock
