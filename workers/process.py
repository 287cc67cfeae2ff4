"""The worker process: listens on a Unix socket, serves any number of gateways, ends when none is left: at
once when the last one says goodbye, after the grace period when it just went away.

Three kinds of threads: the main one reads frames and never blocks; one loader does what takes long (load,
probe, warm up, unload) in the order asked for; the executor's lanes run batches.
Credits, the slot's capacity twice over (one running, one staged), are divided among the connected gateways.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import msgspec

from wire.arena import ArenaInvalid
from wire.frames import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Begun,
    Cancel,
    Credits,
    Done,
    Failure,
    Frame,
    Freed,
    Goodbye,
    Hello,
    Kind,
    Load,
    Outcome,
    Probe,
    ProtocolError,
    Report,
    Run,
    SegmentOpened,
    SegmentRetired,
    Unload,
    WarmedUp,
    WarmUp,
    common_version,
    decode,
)
from workers.executor import Executor, Job
from workers.link import Link
from workers.runtimes.runtime import LoadFailed, RunFailed, runtimes_here
from workers.sessions import LoadedSession, Sessions, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wire.frames import Body
    from workers.runtimes.runtime import Session
    from workers.settings import WorkerSettings


class WorkerProcess:
    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._poller = select.epoll()
        self._sessions = Sessions()
        self._executor = Executor(settings.capacity, self._sessions)
        self._links: dict[int, Link] = {}  # {descriptor: its link}
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # the loader's
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._to_flush: set[Link] = set()
        # when the grace period of the gateway that was lost last ends, None while none has been lost
        self._forget_at: float | None = None
        self._over = False  # the last gateway said goodbye

    def run(self) -> int:
        """Serve until no gateway is left. Returns the exit status."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a signal ends it at once: nothing here outlives it
        listener = socket.socket(fileno=self._settings.listen_fd)
        listener.set_inheritable(False)
        listener.setblocking(False)
        self._poller.register(listener, select.EPOLLIN)
        self._poller.register(self._wake, select.EPOLLIN)
        threading.Thread(target=self._load_forever, name="loader", daemon=True).start()
        # who started it is connected already, or has died since
        self._forget_at = time.monotonic() + self._settings.grace_s
        self._serve(listener)
        return 0

    def _serve(self, listener: socket.socket) -> None:
        while not self._over:
            wait_s = None if self._forget_at is None else max(self._forget_at - time.monotonic(), 0)
            for fd, events in self._poller.poll(wait_s):
                link = self._links.get(fd)
                if link is not None:
                    self._on_event(link, events)
                elif fd == self._wake:
                    self._on_wake()
                elif fd == listener.fileno():
                    self._accept(listener)
            if self._forget_at is not None and time.monotonic() >= self._forget_at:
                if not self._links:
                    return
                self._forget_at = None
                self._tasks.put(self._sessions.close_kept)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        link = Link(sock, self._settings.segment_bytes, self._settings.budget_bytes, self._want_write)
        self._links[sock.fileno()] = link
        self._poller.register(sock, select.EPOLLIN)
        hello = Hello(
            PROTOCOL_MIN,
            PROTOCOL_MAX,
            self._settings.name,
            os.getpid(),
            self._settings.device,
            self._settings.capacity,
            runtimes_here(),
        )
        link.send(Kind.HELLO, 0, hello)

    def _want_write(self, link: Link) -> None:
        self._to_flush.add(link)
        os.eventfd_write(self._wake, 1)

    def _on_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except (BlockingIOError, OSError):
            pass
        while self._to_flush:
            link = self._to_flush.pop()
            if not link.closed:
                self._poller.modify(link.socket, select.EPOLLIN | select.EPOLLOUT)

    def _on_event(self, link: Link, events: int) -> None:
        try:
            if events & select.EPOLLOUT and link.flush():
                self._poller.modify(link.socket, select.EPOLLIN)
            if events & ~select.EPOLLOUT:  # bytes, or an end that reading finds
                self._on_frames(link, link.receive())
        except (EOFError, OSError):
            self._drop(link)
        except (ProtocolError, ArenaInvalid) as error:
            print(f"worker {self._settings.name}: link closed: {error}", file=sys.stderr, flush=True)
            link.send(Kind.GOODBYE, 0, Goodbye(str(error)))
            self._drop(link)

    def _on_frames(self, link: Link, frames: Sequence[Frame]) -> None:
        try:
            for frame in frames:
                self._on_frame(link, frame)
        finally:
            for frame in frames:
                for fd in frame.descriptors:  # that nobody took
                    os.close(fd)

    def _drop(self, link: Link) -> None:
        del self._links[link.socket.fileno()]
        self._poller.unregister(link.socket)
        link.close()
        self._executor.drop(link)
        self._tasks.put(lambda: self._release(link))
        if not link.left:
            self._forget_at = time.monotonic() + self._settings.grace_s
        elif not self._links:
            self._over = True
        self._grant()

    def _release(self, link: Link) -> None:
        """Give up what a gateway that is gone had loaded; runs on the loader, behind its last load."""
        for entry in link.servables.values():
            self._sessions.release(entry, keep=not link.left)
        link.servables.clear()

    def _grant(self) -> None:
        """Divide the slot's credits anew. A gateway that holds more than its share gives back as its batches
        finish.
        """
        greeted = [link for link in self._links.values() if link.greeted]
        if not greeted:
            return
        share = max(2 * self._settings.capacity // len(greeted), 1)
        for link in greeted:
            credits = link.grant(share)
            if credits:
                link.send(Kind.CREDITS, 0, Credits(credits))

    def _on_frame(self, link: Link, frame: Frame) -> None:
        kind, id_, body, descriptors = frame
        if kind == Kind.RUN:
            self._on_run(link, id_, decode(body, Run))
        elif kind == Kind.FREE:
            link.freed(decode(body, Freed).regions)
        elif kind == Kind.SEGMENT:
            opened = decode(body, SegmentOpened)
            if len(descriptors) != 1:
                raise ProtocolError("a SEGMENT frame carries one descriptor")
            link.reader.attach(opened.segment, opened.size_bytes, descriptors.pop())
        elif kind == Kind.RETIRE:
            link.reader.retire(decode(body, SegmentRetired).segment)
        elif kind == Kind.CANCEL:
            self._executor.cancel(link, decode(body, Cancel).batches)
        elif kind == Kind.HELLO:
            self._on_hello(link, decode(body, Hello))
        elif kind == Kind.GOODBYE:
            link.left = True
            link.send(Kind.GOODBYE, 0, Goodbye("", last=len(self._links) == 1))
            raise EOFError
        else:
            self._on_control(link, kind, id_, body)

    def _on_hello(self, link: Link, hello: Hello) -> None:
        common_version((PROTOCOL_MIN, PROTOCOL_MAX), (hello.protocol_min, hello.protocol_max))
        link.greeted = True
        self._grant()

    def _on_run(self, link: Link, batch: int, run: Run) -> None:
        entry = link.servables.get(run.servable)
        if entry is None:
            self._refuse(link, batch, 1)
        elif not self._executor.submit(Job(link, batch, run, entry, time.monotonic_ns())):
            self._refuse(link, batch, entry.spec.width)

    def _refuse(self, link: Link, batch: int, width: int) -> None:
        message = "this servable is not loaded"
        link.send(Kind.DONE, batch, Done(Outcome.UNKNOWN_SERVABLE, link.returned(width), message=message))

    def _on_control(self, link: Link, kind: int, id_: int, body: bytes) -> None:
        """Hand a request that takes long to the loader."""
        if kind == Kind.LOAD:
            load = decode(body, Load)
            self._task(link, id_, lambda: self._load(link, load))
        elif kind == Kind.PROBE:
            asked = decode(body, Probe)
            self._task(link, id_, lambda: self._probe(link, asked))
        elif kind == Kind.WARM_UP:
            warm_up = decode(body, WarmUp)
            self._task(link, id_, lambda: self._warm_up(link, warm_up))
        elif kind == Kind.UNLOAD:
            unload = decode(body, Unload)
            self._task(link, id_, lambda: self._unload(link, unload))
        elif kind == Kind.REPORT:
            link.send(Kind.ANSWER, id_, self._report(link))
        else:
            raise ProtocolError(f"unknown frame kind {kind}")

    def _task(self, link: Link, id_: int, work: Callable[[], Body]) -> None:
        def task() -> None:
            link.send(Kind.BEGUN, id_, Begun())
            try:
                link.send(Kind.ANSWER, id_, work())
            except LoadFailed as error:
                link.send(Kind.FAILED, id_, Failure(str(error), error.retryable))
            except RunFailed as error:
                link.send(Kind.FAILED, id_, Failure(str(error)))
            except MemoryError:
                link.send(Kind.FAILED, id_, Failure("out of memory", retryable=True))
            except Exception as error:
                message = f"the runtime's adapter failed: {type(error).__name__}: {error}"
                link.send(Kind.FAILED, id_, Failure(message))
                raise

        self._tasks.put(task)

    def _load_forever(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task()
            except Exception:  # a defect in a runtime's adapter must not end the loader
                traceback.print_exc()

    def _load(self, link: Link, load: Load) -> Body:
        entry = self._sessions.acquire(load.spec)
        link.servables[load.servable] = entry
        return entry.loaded

    def _entry(self, link: Link, servable: int) -> LoadedSession:
        entry = link.servables.get(servable)
        if entry is None:
            raise LoadFailed("this servable is not loaded")
        return entry

    def _probe(self, link: Link, asked: Probe) -> Body:
        from workers.probe import probe

        entry = self._entry(link, asked.servable)
        return entry.ask(
            msgspec.structs.replace(asked, servable=0),
            lambda: probe(entry.session, asked.max_batch_size, asked.declared, asked.pads),
        )

    def _warm_up(self, link: Link, asked: WarmUp) -> Body:
        entry = self._entry(link, asked.servable)
        return entry.ask(msgspec.structs.replace(asked, servable=0), lambda: _warmed_up(entry.session, asked))

    def _unload(self, link: Link, unload: Unload) -> Body:
        entry = link.servables.pop(unload.servable, None)
        if entry is not None:
            self._sessions.release(entry)
        return self._report(link)

    def _report(self, link: Link) -> Report:
        return Report(
            resident_bytes(),
            # copied: asked for on the main thread and on the loader, while the other one changes them
            sum(each.arena_bytes for each in list(self._links.values())),
            {servable: entry.loaded.memory_bytes for servable, entry in link.servables.copy().items()},
        )


def _warmed_up(session: Session, asked: WarmUp) -> WarmedUp:
    """Run the session as often as asked for.

    Raises:
        RunFailed: no inputs can be made up for it.
    """
    from workers.probe import accepted_shapes, generated, run

    shapes, refusal = accepted_shapes(session, ())
    if refusal:
        raise RunFailed(refusal)
    times = []
    for rows in asked.batch_sizes:
        inputs = generated(session.signature, rows, shapes, seed=0)
        start = time.monotonic_ns()
        for _ in range(asked.runs):
            run(session, inputs)
        times.append((time.monotonic_ns() - start) // max(asked.runs, 1))
    return WarmedUp(tuple(times))
