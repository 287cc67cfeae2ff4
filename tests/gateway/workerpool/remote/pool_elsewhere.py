"""A pool elsewhere in the test's hands: the way to it, and the links that were opened."""

from __future__ import annotations

import asyncio

from gateway.config.device import parse_device
from gateway.workerpool.remote.way import Description, PoolUnreachable, SlotAway
from gateway.workerpool.slot import Slot
from gateway.workerpool.worker import WorkerEvents
from wire.frames import Done, Hello, Outcome

SLOT = Slot("n/cpu", parse_device("cpu"), (0,), 2, node="n", fetches=True)


class FakeLink:
    def __init__(self, events, on_goodbye, pid):
        self.link = self
        self.busy = False
        self.drained = False
        self.lost = None
        self.way_lost = False
        self.pid = pid
        self.capacity = 2
        self.events = events
        self.goodbye = on_goodbye
        self._closed = asyncio.Event()

    async def greet(self, timeout_s):
        return Hello(1, 1, "cpu", self.pid, "cpu", self.capacity)

    async def move(self):
        await self._closed.wait()

    async def reason_of_end(self, reason):
        return f"really, {reason}"

    def drain(self):
        self.drained = True

    def answer(self, batch):
        self.busy = False
        self.events.on_done(batch, Done(Outcome.OK, 1))

    def close(self, reason):
        if self.lost is None:
            self.lost = reason
            self._closed.set()
            self.events.on_lost(reason)


class FakeWay:
    def __init__(self, name="grpc://a", node="n", slots=("cpu",)):
        self.name = name
        self.description = Description(node, "0.1.0", slots)
        self.failure = None
        self.capacity = 2
        self.links = []
        self.ended = []
        self.asked = 0

    def __str__(self):
        return self.name

    def _check(self):
        if self.failure is not None:
            raise self.failure

    async def describe(self):
        self.asked += 1
        self._check()
        return self.description

    async def open(self, slot, events, on_goodbye):
        self._check()
        link = FakeLink(events, on_goodbye, 100 + len(self.links))
        link.capacity = self.capacity
        self.links.append(link)
        return link

    async def end(self, slot, pid, reason):
        self.ended.append((slot, pid, reason))
        self._check()


class Heard:
    """What an owner hears of workers."""

    def __init__(self):
        self.said = []

    def events(self):
        return WorkerEvents(
            lambda worker, link, hello: self.said.append(("up", hello.pid)),
            lambda worker, reason: self.said.append(("down", reason)),
            lambda worker, batch: self.said.append(("begun", batch)),
            lambda worker, batch, done: self.said.append(("done", batch)),
            lambda worker, credits: self.said.append(("credits", credits)),
        )


async def turns(count=30):
    """Let everything go as far as it can without time."""
    for _ in range(count):
        await asyncio.sleep(0)


UNREACHABLE = PoolUnreachable("nobody answers")
AWAY = SlotAway("worker cpu: starting")
