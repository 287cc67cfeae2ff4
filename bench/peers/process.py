"""A server's process: started in a session of its own, its output in a file, ended together with its
children.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from bench.cpu import descendants, read_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_S = 0.005


class StartFailed(Exception):
    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        telling = [line for line in log_tail.splitlines() if any(letter.isalpha() for letter in line)]
        last_line = telling[-1].strip(" |") if telling else "it said nothing"
        super().__init__(f"{name}: {reason}: {last_line}\n{log_tail}")
        self.name = name
        self.reason = reason


class Process:
    """After `stop` neither the process nor any other of its session is left, even if it had died before."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log = folder / f"{name.replace(':', '-')}.log"
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def pids(self) -> frozenset[int]:
        return descendants(self._popen.pid)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Raises StartFailed if the process ends, or if `ready` is not true within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if (code := self._popen.poll()) is not None:
                raise self._failed(f"ended with code {code}")
            if time.monotonic() > deadline:
                raise self._failed(f"not ready after {timeout_s:g} s")
            time.sleep(POLL_S)

    def wait_line(self, prefix: str, timeout_s: float) -> str:
        """The first whole output line that begins with `prefix`."""
        found: list[str] = []

        def look() -> bool:
            lines = self._log.read_text(errors="replace").splitlines(keepends=True)
            found.extend(line.strip() for line in lines if line.startswith(prefix) and line.endswith("\n"))
            return bool(found)

        self.wait_until(look, timeout_s)
        return found[0]

    def stop(self, grace_s: float = 15) -> None:
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for pid in read_processes():
            _kill_if_in_session(pid, session=self._popen.pid)

    def _failed(self, reason: str) -> StartFailed:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        return StartFailed(self.name, reason, tail)


def _kill_if_in_session(pid: int, session: int) -> None:
    try:
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended while we looked
        pass


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
