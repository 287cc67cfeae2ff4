"""A gateway that follows a store, on ports of its own: it can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from etcd_process import free_port
from live_gateway import LiveGateway

from crossgate.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from protos import admin_pb2 as pb

SLOTS = ("cpu,capacity=2",)


class _Life(LiveGateway):
    """One process. It is given what it needs to be told from others."""

    def __init__(self, folder: Path, number: int, arguments: Sequence[str]) -> None:
        super().__init__(folder, folder / f"log-{number}.txt", slots=SLOTS, arguments=arguments)
        self._command = [part for part in self._command if not part.startswith("--models=")]


class MortalGateway:
    """What is started again keeps its name, its ports and its last good state on disk. All methods block."""

    def __init__(self, name: str, store: str, folder: Path, host: str = "127.0.0.1") -> None:
        self.name = name
        self.lives = 0
        self._folder = folder / name
        self._folder.mkdir(mode=0o700)
        self._admin = f"unix:{self._folder / 'admin.sock'}"
        self._arguments = [
            *(f"--store={store}", f"--name={name}", f"--state-folder={self._folder}"),
            *(f"--admin={self._admin}", f"--host={host}"),
            *(f"--grpc-port={free_port()}", f"--http-port={free_port()}"),
        ]
        self._held = contextlib.ExitStack()
        self.life: LiveGateway

    def start(self) -> None:
        """Return when it is ready."""
        self.lives += 1
        self.life = self._held.enter_context(_Life(self._folder, self.lives, self._arguments))

    def kill(self) -> None:
        self.life.workers()  # so that they are known when their gateway is not
        os.kill(self.life.pid, signal.SIGKILL)
        self._held.close()

    def stop(self) -> None:
        self._held.close()

    def status(self) -> list[pb.StatusResponse]:
        with AdminClient(self._admin) as admin:
            return list(admin.pages())

    def log_text(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("log-*.txt")))
