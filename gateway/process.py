"""A process of this user: a child, or one that somebody else has started.

It is held by a descriptor (pidfd), so it is never mistaken for a later process of the same number. Between
processes it is known by a note: its number and when it started.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_START_TIME = 22 - 3  # among the fields of /proc/PID/stat behind the command, see proc(5)


class Process:
    """Must be closed. `status` is a child's exit status once it was waited for, negative for a signal."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self.pid = pid
        self.status: int | None = None
        self._descriptor = os.pidfd_open(pid)
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a child that inherits these descriptors, in a process group of its own: an interrupt on the
        terminal is for the process in front, which tells the others. Raises OSError.
        """
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, pass_fds=descriptors, process_group=0
        )
        process = cls(child.pid)
        process._child = child
        return process

    @classmethod
    def find(cls, note: str) -> Process | None:
        """Return the process that a note is about, None when it has ended or the note is none."""
        pid, _, started = note.strip().partition(" ")
        try:
            process = cls(int(pid))
        except (ValueError, OverflowError, OSError):
            return None
        # only now that it is held is it sure that the number stays its own
        if _start_time(process.pid) == started and not process.ended:
            return process
        process.close()
        return None

    @property
    def note(self) -> str:
        return f"{self.pid} {_start_time(self.pid)}"

    @property
    def ended(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; false when it goes on. Nothing is left of a child that has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.dup(self._descriptor)  # a loop has one reader for each, and several may wait
        loop.add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._reap()
        return True

    def _reap(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # it is another's, or was waited for before
            return
        if result is not None:
            exited = result.si_code == os.CLD_EXITED
            self.status = result.si_status if exited else -result.si_status

    def send(self, number: signal.Signals) -> None:
        """Send a signal, to nobody when it has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass

    @property
    def how_it_ended(self) -> str:
        """Say how, as far as its parent alone can know."""
        if self.status is None:
            return "has ended"
        if self.status < 0:
            return f"was killed by {signal.Signals(-self.status).name}"
        return f"exited with status {self.status}"

    def close(self) -> None:
        """Let go of it, whether it has ended or not."""
        os.close(self._descriptor)
        if self._child is not None:
            self._child.returncode = self.status or 0  # it may go on for others; Popen would warn of that


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parent ends, as the first process of a
    container is; it must reap them.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since boot; empty when it is not there."""
    try:
        # the command stands in parentheses and may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_TIME]
    except OSError:
        return ""
