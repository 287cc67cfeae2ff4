"""What a gateway under attack owes to everyone else: to live, to answer them promptly, and to stay small."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
from peer import WAIT_S
from sample_requests import ONE
from wire_calls import Wire, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway_process import GatewayProcess

PROMPT_S: Final = 2.0  # an idle machine answers in a millisecond
HELD_MIB: Final = 16  # the budget of requests, and that of answers
# What is held costs up to twice as much, and the allocator keeps as much again that it cannot give back. An
# attack that were not bounded would reach hundreds.
GROWTH_MIB: Final = 128
_PAUSE_S: Final = 0.01
_ECHO: Final = request("echo", ONE)


def eventually(condition: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s, f"it did not come about: {what}"
        time.sleep(_PAUSE_S)


def resident_bytes(pid: int) -> int:
    """Return what a process holds for itself: without files, and without the arenas that it shares with its
    workers, whose pages are touched one after the other.
    """
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def open_sockets(pid: int) -> int:
    folder, count = f"/proc/{pid}/fd", 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
        except FileNotFoundError:
            pass  # closed meanwhile
    return count


class Bystander(threading.Thread):
    """Calls all the time on a connection of its own, and watches how large the gateway is."""

    def __init__(self, pid: int, connect: Callable[[], Wire]) -> None:
        super().__init__(name="bystander")
        self._pid = pid
        self._connect = connect
        self._answered = threading.Condition()
        self._stopping = threading.Event()
        self.count = 0
        self.slowest_s = 0.0
        self.largest_bytes = 0
        self.failure: grpc.RpcError | None = None

    def run(self) -> None:
        with self._connect() as wire:
            while not self._stopping.is_set() and self.failure is None:
                started_s = time.monotonic()
                try:
                    wire.infer(_ECHO)
                except grpc.RpcError as error:
                    self.failure = error
                self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
                self.largest_bytes = max(self.largest_bytes, resident_bytes(self._pid))
                with self._answered:
                    self.count += 1
                    self._answered.notify_all()
                self._stopping.wait(_PAUSE_S)

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def wait_for_answers(self, count: int) -> None:
        with self._answered:
            wanted = self.count + count
            self._answered.wait_for(lambda: self.count >= wanted or self.failure is not None, WAIT_S)


class Siege:
    """Watches one gateway, which is calm when this is made."""

    def __init__(self, process: GatewayProcess, connect: Callable[[], Wire] | None = None) -> None:
        self._process = process
        self._connect = connect or (lambda: Wire(process.grpc))
        with self._connect() as wire:
            wire.infer(_ECHO)
        self._calm_bytes = resident_bytes(process.process.pid)

    @contextlib.contextmanager
    def laid(self) -> Iterator[None]:
        """Attack within. Fails unless a bystander is served promptly all the time and newcomers afterwards,
        the process lives and nothing in it panicked, it is no larger than `GROWTH_MIB` allows, and the
        connections have gone.
        """
        process, pid = self._process, self._process.process.pid
        sockets, said = open_sockets(pid), process.log_size_bytes
        bystander = Bystander(pid, self._connect)
        bystander.start()
        try:
            bystander.wait_for_answers(1)
            yield
            bystander.wait_for_answers(2)  # the second was asked for after the attack
        finally:
            bystander.stop()
        assert process.process.poll() is None, "the gateway has ended"
        assert bystander.failure is None, f"a bystander was refused: {bystander.failure}"
        assert bystander.slowest_s < PROMPT_S
        grown_mib = (bystander.largest_bytes - self._calm_bytes) >> 20
        if grown_mib >= GROWTH_MIB:
            self._calm_bytes = bystander.largest_bytes  # only this attack is to blame
        assert grown_mib < GROWTH_MIB, f"the gateway has grown by {grown_mib} MiB"
        eventually(lambda: open_sockets(pid) <= sockets, f"{open_sockets(pid)} sockets become {sockets}")
        with self._connect() as newcomer:
            started_s = time.monotonic()
            newcomer.infer(_ECHO)
            assert time.monotonic() - started_s < PROMPT_S
        assert "panicked" not in process.log(said)
