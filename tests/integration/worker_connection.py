"""A gateway's side of real workers: links to them, and pools that own them."""

from __future__ import annotations

import asyncio
import os
import socket
import time

from gateway.call import BatchInput
from gateway.workerpool.link import LinkEvents, WorkerLink
from gateway.workerpool.worker import WorkerEvents
from wire.frames import Kind, Load, Loaded, Outcome, ServableSpec, Signature, TensorSpec

LIMIT_S = 30
KIB, MIB = 1 << 10, 1 << 20
BYTES_OF_ROWS = Signature(
    (TensorSpec("x", "UINT8", (-1, -1)),), (TensorSpec("y", "UINT8", (-1, -1)),), "loopback"
)


class Connection:
    """One gateway's link to one worker, and what came back through it."""

    def __init__(self):
        self.link = None
        self.hello = None
        self.credits = 0
        self.begun = []
        self.done = {}
        self.lost = None
        self._batches = iter(range(1, 1_000_000))
        self._servables = iter(range(1, 1_000_000))
        self._change = asyncio.Condition()
        self._tasks = set()

    def events(self):
        return LinkEvents(self.begun.append, self.on_done, self.on_credits, self.on_lost)

    async def connect(self, path, segment_bytes=16 * MIB, budget_bytes=256 * MIB):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.connect(str(path))
        self.link = WorkerLink(
            sock,
            asyncio.get_running_loop(),
            self.events(),
            name="second",
            segment_bytes=segment_bytes,
            budget_bytes=budget_bytes,
        )
        self.hello = await self.link.greet(LIMIT_S)
        return self

    def on_done(self, batch, done):
        self.done[batch] = done
        self.credits += done.credits
        self._notify()

    def on_credits(self, credits):
        self.credits += credits
        self._notify()

    def on_lost(self, reason):
        self.lost = reason
        self._notify()

    def _notify(self):
        async def notify():
            async with self._change:
                self._change.notify_all()

        task = asyncio.ensure_future(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, condition):
        async with asyncio.timeout(LIMIT_S), self._change:
            await self._change.wait_for(condition)

    async def load(
        self, *, path="", runtime="loopback", signature=BYTES_OF_ROWS, count=1, width=1, **options
    ):
        id_ = next(self._servables)
        device = "openvino:CPU" if runtime == "openvino" else "cpu"
        spec = ServableSpec("m", "1", str(path), runtime, device, count, width, options, signature=signature)
        loaded = await self.link.request(Kind.LOAD, Load(id_, spec), Loaded, LIMIT_S)
        return id_, loaded

    def send(self, servable, data, deadline_ns=0):
        """Send one row of bytes as a batch."""
        batch = next(self._batches)
        rows = [BatchInput("x", "UINT8", (1, len(data)), len(data), [data])]
        self.link.run(batch, servable, 1, rows, (), deadline_ns)
        self.credits -= 1
        return batch

    async def answer(self, batch):
        await self.until(lambda: batch in self.done or self.lost)
        assert self.lost is None
        return self.done[batch]

    async def run(self, servable, data):
        """Return the outcome, and a copy of the output with its region given back."""
        done = await self.answer(self.send(servable, data))
        if done.outcome != Outcome.OK:
            return done, b""
        (tensor,) = done.outputs
        output = bytes(self.link.view(tensor))
        self.link.free(done.outputs)
        return done, output


class Watched(Connection):
    """A pool's worker and its link, as the pool's owner sees them."""

    def __init__(self, pool, slot):
        super().__init__()
        self.pool = pool
        self.slot = slot
        self.ups = 0
        self.downs = []
        self.times = []

    def worker_events(self):
        return WorkerEvents(
            self._on_up,
            self._on_down,
            lambda worker, batch: self.begun.append(batch),
            lambda worker, batch, done: self.on_done(batch, done),
            lambda worker, credits: self.on_credits(credits),
        )

    def _on_up(self, worker, link, hello):
        self.link, self.hello, self.credits, self.lost = link, hello, 0, None
        self.ups += 1
        self.times.append(time.monotonic())
        self._notify()

    def _on_down(self, worker, reason):
        self.downs.append(reason)
        self.on_lost(reason)
        self.times.append(time.monotonic())

    @property
    def worker(self):
        return self.pool.workers[self.slot]

    @property
    def path(self):
        return self.worker._rendezvous.path

    async def start(self):
        self.pool.start(self.slot)
        await self.until_up(1)
        return self

    async def until_up(self, times):
        await self.until(lambda: self.ups == times and self.credits > 0)


async def until_ended(pid):
    """Wait for the end of a process, whoever's child it is."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(fd, lambda: ended.done() or ended.set_result(None))
    try:
        async with asyncio.timeout(LIMIT_S):
            await ended
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
