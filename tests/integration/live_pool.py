"""A pool as its users run it: `crossgate worker` in a process of its own; and gateways' sides of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from worker_connection import LIMIT_S, Watched

from gateway.clock import MonotonicClock
from gateway.config.store.opening import open_store
from gateway.workerpool.pool import Pool
from gateway.workerpool.remote.discovery import Discovery
from gateway.workerpool.remote.terms import Terms
from gateway.workerpool.remote.trust import Trust
from gateway.workerpool.remote.ways import Ways
from gateway.workerpool.rendezvous import workers_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COMMAND = [sys.executable, "-P", "-m", "crossgate.cli", "worker"]
MIB = 1 << 20
SLOT = "cpu,capacity=2"
NODE = "there"
START_S = 40.0
STOP_S = 20.0


class LivePool:
    """Leaving the context ends it and its workers, by force if it must be."""

    def __init__(
        self,
        folder: Path,
        listen: str,
        *arguments: str,
        node: str = NODE,
        slots: Sequence[str] = (SLOT,),
        store: str = "",
    ) -> None:
        self.folder = folder
        self.workers = folder / "workers"
        self._command = [*COMMAND, f"--store={store or folder / 'store'}"]
        self._command += [f"--listen={listen}", f"--node={node}", f"--pool-folder={self.workers}"]
        self._command += [*(f"--slot={slot}" for slot in slots), *arguments]
        self._log = folder / "pool.log"
        self.ready = ""

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        self.ready = self.process.stdout.readline().decode().strip() if readable else ""
        if not self.ready.startswith("ready "):
            self.__exit__()
            raise AssertionError(f"it did not become ready\n{self.log_text()[-4000:]}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for worker in workers_of(self.workers):
            worker.send(signal.SIGKILL)
            worker.close()

    @property
    def port(self) -> int:
        return int(self.ready.partition("listen=")[2].split()[0].rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def logged(self, text: str) -> bool:
        lines = self.log_text().splitlines()
        return any(text in json.loads(line)["event"] for line in lines if line.startswith("{"))


class GatewaySide:
    """A gateway's pool without slots of its own, and what it discovers in the store."""

    def __init__(self, store: Path, trust: Trust | None = None, name: str = "g1") -> None:
        self._store = str(store)
        self._trust = trust or Trust()
        self._name = name
        self.pool = Pool([], MonotonicClock())
        self.slots_changed = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        clock = MonotonicClock()
        store = await self._stack.enter_async_context(open_store(self._store))
        await self._stack.enter_async_context(self.pool)
        self.watched = {}
        terms = Terms(self._name, 16 * MIB, 256 * MIB)
        ways = Ways(self._trust, terms, clock, self.pool)
        self.discovery = Discovery(store, self.pool, clock, ways)
        self._tasks = asyncio.ensure_future(self.discovery.run())
        self._stack.push_async_callback(self._end)
        return self

    async def _end(self) -> None:
        self._tasks.cancel()
        await asyncio.wait((self._tasks,))
        if not self._tasks.cancelled():
            self._tasks.result()

    async def leave(self) -> None:
        await self._stack.aclose()

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def slot(self, name: str = f"{NODE}/{SLOT}") -> Watched:
        """Return the worker of a slot once it is up."""
        watched = Watched(self.pool, name)
        self.pool.observe(watched.worker_events(), self.slots_changed.set)
        await self.until(lambda: name in self.pool.slots)
        return await watched.start()

    async def until(self, condition, timeout_s: float = LIMIT_S) -> None:
        """Poll: what is awaited happens in other processes."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
