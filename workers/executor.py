"""Runs batches: as many at once as the slot's capacity holds, in the order in which they came, never past a
servable's count.

A batch whose deadline has passed or that was cancelled before it started is answered without being run.
Outputs are written into the gateway's reading arena; when that is full the lane waits until the gateway has
read.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wire.arena import ArenaInvalid, RegionTooLarge
from wire.datatypes import BYTES, ELEMENT_SIZE_BYTES
from wire.frames import Begun, Done, Kind, Outcome, Run, TensorAt
from workers.link import Link, LinkClosed
from workers.runtimes.runtime import RunFailed
from workers.tensors import NUMPY_TYPES, join_bytes, read

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from workers.runtimes.runtime import Array
    from workers.sessions import LoadedSession, Sessions


class Job(NamedTuple):
    link: Link
    batch: int
    run: Run
    entry: LoadedSession
    received_ns: int


class ArenaOutputs:
    """A session's results, written into the link's arena as they come."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.tensors: list[TensorAt] = []

    def allocate(self, name: str, datatype: str, shape: Sequence[int]) -> Array:
        size_bytes = int(np.prod(shape, dtype=np.int64)) * ELEMENT_SIZE_BYTES[datatype]
        view = self._take(name, datatype, tuple(shape), size_bytes)
        return np.frombuffer(view, NUMPY_TYPES[datatype]).reshape(shape)

    def put(self, name: str, datatype: str, array: Array) -> None:
        if datatype == BYTES:
            raw = join_bytes(array.ravel().tolist())
            self._take(name, datatype, array.shape, len(raw))[:] = raw
        else:
            view = self._take(name, datatype, array.shape, array.nbytes)
            np.frombuffer(view, array.dtype).reshape(array.shape)[...] = array

    def _take(self, name: str, datatype: str, shape: tuple[int, ...], size_bytes: int) -> memoryview:
        region, view = self._link.allocate(size_bytes)
        self.tensors.append(TensorAt(name, datatype, shape, region.segment, region.offset, size_bytes))
        return view[:size_bytes]

    def give_back(self) -> None:
        self._link.freed([(t.segment, t.offset) for t in self.tensors])
        self.tensors.clear()


class Executor:
    """Owns the lanes' threads. `submit` and `drop` are called by the process's loop."""

    def __init__(self, capacity: int, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: deque[Job] = deque()
        self._free = capacity
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)  # a lane may find something to do
        self._idle = 0
        self._lanes = 0
        self._max_lanes = capacity

    def submit(self, job: Job) -> bool:
        """Queue a batch; false when its session is closed. Nothing else is refused here: a gateway may only
        send what it holds credits for.
        """
        if not self._sessions.need(job.entry):
            return False
        with self._lock:
            self._waiting.append(job)
            # a lane that was notified counts as idle until it wakes: compare, do not ask for none
            if self._idle < len(self._waiting) and self._lanes < self._max_lanes:
                self._lanes += 1
                threading.Thread(target=self._lane, name=f"lane-{self._lanes}", daemon=True).start()
            else:
                self._change.notify()
        return True

    def cancel(self, link: Link, batches: Collection[int]) -> None:
        """Do not start these batches of a gateway. What has started, or is unknown, is left alone."""
        with self._lock:
            waiting = {job.batch for job in self._waiting if job.link is link}
            link.cancelled.update(waiting.intersection(batches))

    def drop(self, link: Link) -> None:
        """Forget the batches of a gateway that is gone."""
        with self._lock:
            dropped = [job for job in self._waiting if job.link is link]
            self._waiting = deque(job for job in self._waiting if job.link is not link)
        for job in dropped:
            self._sessions.finished(job.entry)

    def _next(self) -> Job | None:
        """Return the first job that may start now; called with the lock held. A wide one that waits for room
        is not overtaken, or it would wait for ever.
        """
        for i, job in enumerate(self._waiting):
            if job.entry.running >= job.entry.spec.count:
                continue
            if self._width(job) > self._free:
                return None
            del self._waiting[i]
            return job
        return None

    def _width(self, job: Job) -> int:
        """Return how much of the capacity a run takes; one that is to be alone takes all."""
        return self._max_lanes if job.run.alone else min(job.entry.spec.width, self._max_lanes)

    def _lane(self) -> None:
        while True:
            with self._lock:
                while (job := self._next()) is None:
                    self._idle += 1
                    self._change.wait()
                    self._idle -= 1
                width = self._width(job)
                self._free -= width
                job.entry.running += 1
            done = self._run(job)
            # before the next batch may start: should that end the process, this one has been heard of
            job.link.send(Kind.DONE, job.batch, done)
            with self._lock:
                self._free += width
                job.entry.running -= 1
                if self._waiting and self._idle:
                    self._change.notify_all()
            self._sessions.finished(job.entry)
            del job, done

    def _run(self, job: Job) -> Done:
        """Run one batch and say what became of it."""
        run, link, started_ns = job.run, job.link, time.monotonic_ns()
        credits = link.returned(job.entry.spec.width)
        cancelled = job.batch in link.cancelled
        link.cancelled.discard(job.batch)
        if cancelled or (run.deadline_ns and started_ns > run.deadline_ns):
            outcome = Outcome.CANCELLED if cancelled else Outcome.EXPIRED
            return Done(
                outcome, credits, received_ns=job.received_ns, started_ns=started_ns, ended_ns=started_ns
            )
        if run.alone:
            link.send(Kind.BEGUN, job.batch, Begun(batch=True))
        outputs = ArenaOutputs(link)
        ran_ns = run_ns = 0
        try:
            inputs = {
                t.name: read(t.datatype, t.shape, link.reader.view(t.segment, t.offset, t.size_bytes))
                for t in run.inputs
            }
            ran_ns = time.monotonic_ns()
            job.entry.session.run(inputs, run.outputs, outputs)
            run_ns = time.monotonic_ns() - ran_ns
        except LinkClosed:
            return Done(Outcome.CANCELLED, 0)
        except Exception as error:  # whatever it is, a lane and its credits must not be lost to it
            outputs.give_back()
            outcome, message = _failure(error)
            return Done(outcome, credits, message=message, started_ns=started_ns)
        return Done(
            Outcome.OK,
            credits,
            outputs=tuple(outputs.tensors),
            received_ns=job.received_ns,
            started_ns=started_ns,
            ran_ns=ran_ns,
            run_ns=run_ns,
            ended_ns=time.monotonic_ns(),
        )


def _failure(error: Exception) -> tuple[Outcome, str]:
    """Return what to say about a run that raised."""
    match error:
        case RegionTooLarge():
            return Outcome.TOO_LARGE, f"the outputs of this run: {error}"
        case RunFailed() | ArenaInvalid() | ValueError():
            return Outcome.MODEL_FAILED, str(error)
        case MemoryError():
            return Outcome.MODEL_FAILED, "out of memory during the run"
        case _:
            traceback.print_exception(error)
            return Outcome.MODEL_FAILED, f"the runtime's adapter failed: {type(error).__name__}: {error}"
