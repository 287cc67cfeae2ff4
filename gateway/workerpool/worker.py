"""One worker under supervision: started, connected to, watched, and started again with backoff when it ends.

The process is started with its listening socket already open, in a process group of its own (an interrupt on
the terminal drains the gateway and must not kill what it drains), and outlives a gateway that dies by its
grace period.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.workerpool.backoff import Backoff
from gateway.workerpool.link import LinkEvents, WorkerLink, WorkerLost
from wire.frames import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock
    from gateway.workerpool.slot import Slot
    from wire.frames import Done, Hello

_GREETING_TIMEOUT_S = 20.0
_TERMINATION_S = 2.0
_UP_LIMIT_S = 1.0


class WorkerEvents(NamedTuple):
    """What a worker tells its owner; called on the loop. `on_down` follows every `on_up` but the
    last one when the pool ends, with the reason."""

    on_up: Callable[[Worker, WorkerLink, Hello], None]
    on_down: Callable[[Worker, str], None]
    on_done: Callable[[Worker, int, Done], None]
    on_credits: Callable[[Worker, int], None]


class Worker:
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
    ) -> None:
        self.slot = slot
        self.restarts = 0
        self.pid: int | None = None
        self.down_reason = "starting"
        self._events = events
        self._clock = clock
        # a socket's path may have 107 characters, a slot's name with a list of CPUs has more
        self._path = folder / f"{hashlib.sha256(slot.name.encode()).hexdigest()[:16]}.sock"
        self._gateway = gateway
        self._segment_bytes = segment_bytes
        self._budget_bytes = budget_bytes
        self._grace_s = grace_s
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: WorkerLink | None = None
        self._killed = ""
        self._was_up = False

    async def supervise(self) -> None:
        """Keep the worker running until cancelled, then end it."""
        try:
            while True:
                began_ns = self._clock.now_ns()
                try:
                    self.down_reason = await self._live_once()
                except OSError as error:  # no process, no memory, no descriptors: these may pass
                    self.down_reason = f"worker {self.slot.name} cannot be started: {error}"
                    await self._end()
                self.restarts += 1
                good_s = (self._clock.now_ns() - began_ns) / 1e9
                # a worker that can start and is ended by requests must not be kept from serving others for
                # long
                limit_s = _UP_LIMIT_S if self._was_up else None
                await asyncio.sleep(self._backoff.after_s(good_s, limit_s=limit_s))
        finally:
            await self._end()

    async def _live_once(self) -> str:
        """Start the process and serve its link until it is lost; return why it ended."""
        loop = asyncio.get_running_loop()
        self._killed = ""
        process = self._start()
        lost: asyncio.Future[str] = loop.create_future()
        self._was_up = False
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        link = WorkerLink(
            sock,
            loop,
            LinkEvents(
                lambda batch, done: self._events.on_done(self, batch, done),
                lambda credits: self._events.on_credits(self, credits),
                lambda reason: None if lost.done() else lost.set_result(reason),
            ),
            name=self._gateway,
            segment_bytes=self._segment_bytes,
            budget_bytes=self._budget_bytes,
        )
        self._link = link
        try:
            hello = await link.greet(_GREETING_TIMEOUT_S)
            self._events.on_up(self, link, hello)
            self._was_up = True
            reason = await lost
        except (WorkerLost, ProtocolError, TimeoutError) as error:
            reason = str(error) or "no greeting from the worker"
        finally:
            self._link = None
            link.close("the gateway closes the link")
        ended = await self._reason_of_end(process, reason)  # also reaps it
        reason = self._killed or ended
        if self._was_up:
            self._events.on_down(self, reason)
        return reason

    def _start(self) -> subprocess.Popen[bytes]:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(self._path))
        listener.listen(16)
        settings = {
            "name": self.slot.name,
            "listen_fd": listener.fileno(),
            "device": str(self.slot.device),
            "capacity": self.slot.capacity,
            "cpus": self.slot.cpus,
            "grace_s": self._grace_s,
            "segment_bytes": self._segment_bytes,
            "budget_bytes": self._budget_bytes,
        }
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": self.slot.cuda_visible_devices}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers", json.dumps(settings)],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(listener.fileno(),),
            process_group=0,
        )
        listener.close()
        self.pid = self._process.pid
        return self._process

    async def _reason_of_end(self, process: subprocess.Popen[bytes], reason: str) -> str:
        """Return how the process ended, or, when it still runs, end it for the reason of its link."""
        status = await _wait(process, 0.5)
        if status is None:
            process.kill()
            await _wait(process, _TERMINATION_S)
            return reason
        if status < 0:
            return f"worker {self.slot.name} was killed by {signal.Signals(-status).name}"
        return f"worker {self.slot.name} exited with status {status}"

    @property
    def resident_bytes(self) -> int:
        """The process's resident memory, 0 while there is none."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def kill(self, reason: str) -> None:
        """Kill a worker that hangs; it is lost with this reason, and started again."""
        if self._process is not None and self._process.poll() is None:
            self._killed = reason
            self._process.kill()

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        if await _wait(process, _TERMINATION_S) is None:
            process.kill()
            await _wait(process, _TERMINATION_S)
        self._path.unlink(missing_ok=True)


async def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Return the exit status, None when the process runs on."""
    status = process.poll()
    if status is not None:
        return status
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    fd = os.pidfd_open(process.pid)
    loop.add_reader(fd, lambda: None if ended.done() else ended.set_result(None))
    try:
        async with asyncio.timeout(timeout_s):
            await ended
    except TimeoutError:
        return None
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return process.wait()
