"""The executor's lanes with sessions that the test holds and lets go."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from wire.frames import Done, FrameReader, Kind, Loaded, Outcome, Run, ServableSpec, Signature, decode
from wire.sockets import receive
from workers.executor import Executor, Job
from workers.link import Link
from workers.sessions import LoadedSession, Sessions

LIMIT_S = 10


class Held:
    """A session whose runs wait until they are let go; `raises` is what they end with."""

    def __init__(self, raises=None):
        self.signature = Signature((), ())
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.raises = raises
        self.closed = threading.Event()
        self.writes = ()

    def run(self, inputs, wanted, outputs):
        self.started.release()
        assert self.go.acquire(timeout=LIMIT_S)
        for array in self.writes:
            outputs.put("y", "FP32", array)
        if self.raises is not None:
            raise self.raises

    def close(self):
        self.closed.set()

    def wait_started(self, times=1):
        for _ in range(times):
            assert self.started.acquire(timeout=LIMIT_S)


class Gateway:
    """The other end of a link: reads what was answered."""

    def __init__(self):
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(LIMIT_S)
        self.link = Link(ours, 1 << 16, 1 << 20, lambda link: None)
        self.link.grant(100)
        self._frames = FrameReader()
        self._done = []

    def next_done(self):
        while not self._done:
            data, descriptors = receive(self.socket)
            assert data
            for frame in self._frames.feed(data, descriptors):
                if frame.kind == Kind.DONE:
                    self._done.append((frame.id, decode(frame.body, Done)))
        return self._done.pop(0)

    def close(self):
        self.link.close()
        self.socket.close()


@pytest.fixture
def gateway():
    gateway = Gateway()
    yield gateway
    gateway.close()


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def entry():
    def make(session, count=1, width=1, users=1):
        spec = ServableSpec("m", "1", "", "loopback", "cpu", count, width)
        return LoadedSession(spec, session, Loaded(session.signature, 0, 0), users=users)

    return make


def job(gateway, batch, entry, deadline_ns=0):
    return Job(gateway.link, batch, Run(1, 1, (), (), deadline_ns), entry, 0)


def test_batches_run_in_the_order_they_came(gateway, sessions, entry):
    session = Held()
    executor = Executor(1, sessions)
    there = entry(session)
    for batch in (1, 2, 3):
        assert executor.submit(job(gateway, batch, there))
        session.go.release()
    assert [gateway.next_done()[0] for _ in range(3)] == [1, 2, 3]


def test_as_many_run_at_once_as_the_slot_holds(gateway, sessions, entry):
    session = Held()
    executor = Executor(2, sessions)
    there = entry(session, count=3)
    for batch in (1, 2, 3):
        executor.submit(job(gateway, batch, there))
    session.wait_started(2)
    assert there.running == 2
    session.go.release(3)
    assert {gateway.next_done()[0] for _ in range(3)} == {1, 2, 3}


def test_two_batches_that_arrive_together_do_not_share_one_idle_lane(gateway, sessions, entry):
    session = Held()
    executor = Executor(2, sessions)
    there = entry(session, count=2)
    executor.submit(job(gateway, 1, there))
    session.wait_started()
    session.go.release()
    gateway.next_done()
    for batch in (2, 3):
        executor.submit(job(gateway, batch, there))
    session.wait_started(2)  # both, before either is let go
    session.go.release(2)
    assert {gateway.next_done()[0] for _ in range(2)} == {2, 3}


def test_a_servable_at_its_count_does_not_hold_up_another(gateway, sessions, entry):
    one, other = Held(), Held()
    executor = Executor(2, sessions)
    first, second = entry(one), entry(other)
    for batch, there in ((1, first), (2, first), (3, second)):
        executor.submit(job(gateway, batch, there))
    one.wait_started()
    other.wait_started()
    assert first.running == 1
    other.go.release()
    assert gateway.next_done()[0] == 3
    one.go.release(2)
    assert [gateway.next_done()[0] for _ in range(2)] == [1, 2]


def test_a_started_batch_is_not_cancelled_and_a_waiting_one_is(gateway, sessions, entry):
    session = Held()
    executor = Executor(1, sessions)
    there = entry(session)
    for batch in (1, 2):
        executor.submit(job(gateway, batch, there))
    session.wait_started()
    executor.cancel(gateway.link, [1, 2, 99])
    assert gateway.link.cancelled == {2}
    session.go.release()
    assert [(batch, done.outcome) for batch, done in (gateway.next_done(), gateway.next_done())] == [
        (1, Outcome.OK),
        (2, Outcome.CANCELLED),
    ]
    assert gateway.link.cancelled == set()


def test_an_expired_batch_is_not_run(gateway, sessions, entry):
    session = Held()
    Executor(1, sessions).submit(job(gateway, 1, entry(session), deadline_ns=1))
    batch, done = gateway.next_done()
    assert (batch, done.outcome, done.credits) == (1, Outcome.EXPIRED, 1)
    assert not session.started.acquire(blocking=False)


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (ValueError("bad shape"), Outcome.MODEL_FAILED, "bad shape"),
        (MemoryError(), Outcome.MODEL_FAILED, "out of memory during the run"),
        (
            AttributeError("_session"),
            Outcome.MODEL_FAILED,
            "the runtime's adapter failed: AttributeError: _session",
        ),
    ],
)
def test_whatever_a_run_raises_its_lane_lives(gateway, sessions, entry, capfd, error, outcome, message):
    session = Held(error)
    session.writes = (np.ones(4, np.float32),)
    executor = Executor(1, sessions)
    there = entry(session)
    for batch in (1, 2):
        executor.submit(job(gateway, batch, there))
        session.go.release()
        assert gateway.next_done() == (
            batch,
            Done(outcome, 1, message=message, started_ns=pytest.approx(0, abs=1e30)),
        )
    assert gateway.link._arena.used_bytes == 0
    assert capfd.readouterr().err.count("Traceback") == (2 if isinstance(error, AttributeError) else 0)


def test_a_lane_that_waits_for_room_ends_its_run_when_the_gateway_goes(gateway, sessions, entry):
    session, other = Held(), Held()
    session.writes = (np.zeros(10_000, np.float32),) * 2  # the second does not fit beside the first
    executor = Executor(1, sessions)
    executor.submit(job(gateway, 1, entry(session)))
    session.wait_started()
    session.go.release()
    gateway.link.close()
    second = Gateway()
    executor.submit(job(second, 2, entry(other)))
    other.go.release()
    assert second.next_done()[0] == 2
    second.close()


def test_a_failure_after_the_gateway_went_harms_no_lane(gateway, sessions, entry):
    session, other = Held(ValueError("late")), Held()
    executor = Executor(1, sessions)
    executor.submit(job(gateway, 1, entry(session)))
    session.wait_started()
    gateway.link.close()
    session.go.release()
    second = Gateway()
    executor.submit(job(second, 2, entry(other)))
    other.go.release()
    assert second.next_done()[0] == 2
    second.close()


def test_batches_of_a_gateway_that_is_gone_are_dropped_and_their_session_let_go(gateway, sessions, entry):
    session = Held()
    executor = Executor(1, sessions)
    there = entry(session)
    for batch in (1, 2):
        executor.submit(job(gateway, batch, there))
    session.wait_started()
    sessions.release(there)
    executor.drop(gateway.link)
    assert there.batches == 1
    assert not session.closed.is_set()
    session.go.release()
    assert session.closed.wait(LIMIT_S)


def test_a_closed_session_takes_no_batch(gateway, sessions, entry):
    there = entry(Held())
    sessions.release(there)
    assert not Executor(1, sessions).submit(job(gateway, 1, there))


# -- sessions ---


def test_equal_specs_share_a_session_and_the_last_user_closes_it():
    sessions = Sessions()
    spec = ServableSpec("m", "1", "", "loopback", "cpu", 1, 1)
    first, second = sessions.acquire(spec), sessions.acquire(spec)
    assert first is second
    sessions.release(first)
    assert not first.closed
    sessions.release(second)
    assert first.closed
    assert sessions.acquire(spec) is not first


def test_a_kept_session_is_found_again_and_survives_its_last_run():
    sessions = Sessions()
    spec = ServableSpec("m", "1", "", "loopback", "cpu", 1, 1)
    there = sessions.acquire(spec)
    assert sessions.need(there)
    sessions.release(there, keep=True)
    sessions.finished(there)
    assert sessions.acquire(spec) is there
    sessions.close_kept()
    assert not there.closed  # in use again
    sessions.release(there, keep=True)
    sessions.close_kept()
    assert there.closed
    assert not sessions.need(there)


# -- links ---


def test_frames_with_descriptors_wait_their_turn_behind_a_full_socket():
    gateway = Gateway()
    link = gateway.link
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(20):
        link.send(Kind.DONE, 7, Done(Outcome.OK, 1, message="x" * 4000))
    link.allocate(1)  # announces a segment
    link.allocate(1 << 17)
    link.send(Kind.DONE, 8, Done(Outcome.OK, 1))
    assert not link.flush()
    kinds, descriptors = [], []
    reader = FrameReader()
    while len(kinds) < 23:
        data, fds = receive(gateway.socket)
        for frame in reader.feed(data, fds):
            kinds.append(frame.kind)
            descriptors += frame.descriptors
        link.flush()
    assert kinds == [Kind.DONE] * 20 + [Kind.SEGMENT] * 2 + [Kind.DONE]
    assert len(descriptors) == 2
    for fd in descriptors:
        os.close(fd)
    assert link.flush()
    gateway.close()


def test_a_gateway_that_does_not_read_is_cut_off():
    gateway = Gateway()
    message = "x" * (8 << 20)
    for _ in range(10):
        gateway.link.send(Kind.DONE, 1, Done(Outcome.OK, 1, message=message))
    with pytest.raises(OSError, match=r"pipe|reset"):
        gateway.link.flush()
    gateway.close()


def test_a_closed_link_closes_what_it_had_not_sent():
    before = len(list(Path("/proc/self/fd").iterdir()))
    gateway = Gateway()
    gateway.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(20):
        gateway.link.send(Kind.DONE, 7, Done(Outcome.OK, 1, message="x" * 4000))
    gateway.link.allocate(1)
    gateway.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    gateway.link.send(Kind.DONE, 8, Done(Outcome.OK, 1))  # pointless, and harmless


def test_a_shrunken_share_comes_back_as_batches_finish():
    gateway = Gateway()
    link = gateway.link
    assert [link.grant(100), link.grant(98), link.grant(99)] == [0, 0, 0]
    assert [link.returned(1) for _ in range(3)] == [0, 1, 1]
    assert link.grant(100) == 1
    link.grant(90)
    assert [link.returned(4) for _ in range(4)] == [0, 0, 2, 4]
    gateway.close()
