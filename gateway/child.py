"""A gateway process that this process has started: one of several, or the one that is to follow it."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
from typing import TYPE_CHECKING

from gateway.control import Control, Failed, HandOver, Ready
from gateway.process import Process
from gateway.settings import Inheritance, to_json

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.control import Message
    from gateway.settings import GatewaySettings

_ENDING_S = 5.0


class ChildFailed(Exception):
    """A child did not become ready; the message says why."""


class Child:
    """Must be closed. `ready` is what it says of itself, None until it serves; `failure` why it cannot."""

    def __init__(self, process: Process, control: Control, ready: Ready | None = None) -> None:
        self.process = process
        self.control = control
        self.ready = ready
        self.failure = ""
        self._heard = asyncio.Event()  # it is ready, has failed, or has ended
        control.listen(asyncio.get_running_loop(), self._on_message)

    @classmethod
    def start(
        cls,
        settings: GatewaySettings,
        grpc: Sequence[socket.socket],
        http: socket.socket,
        folder: Path,
        machine: tuple[int, ...],
        *,
        waits: bool,
    ) -> Child:
        """Start a process with these settings behind these sockets. Raises OSError."""
        control, theirs = Control.pair()
        with theirs:
            listen_fds = tuple(sock.fileno() for sock in grpc)
            inherited = Inheritance(listen_fds, http.fileno(), theirs.fileno(), machine, waits)
            told = dataclasses.replace(settings, pool_folder=folder, inherited=inherited)
            command = [sys.executable, "-P", "-m", "gateway", to_json(told)]
            process = Process.start(command, [*listen_fds, http.fileno(), theirs.fileno()])
        return cls(process, control)

    def _on_message(self, message: Message | None) -> None:
        if isinstance(message, Ready):
            self.ready = message
        elif isinstance(message, Failed):
            self.failure = message.reason
        elif message is not None:
            return
        self._heard.set()

    async def wait_ready(self, timeout_s: float | None = None) -> Ready:
        """Wait until it serves.

        Raises:
            ChildFailed
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        except TimeoutError as error:
            raise ChildFailed(f"it was not ready within {timeout_s:g} s") from error
        if self.ready is not None:
            return self.ready
        if not self.failure and await self.process.wait(_ENDING_S):
            raise ChildFailed(f"it {self.process.how_it_ended} before it was ready")
        raise ChildFailed(self.failure or "it closed the connection before it was ready")

    def hand_over(self) -> None:
        """Another process serves: let it finish what it has, and end."""
        self.control.send(HandOver())

    async def end(self, timeout_s: float) -> None:
        """Wait for its end, and kill it after this time."""
        if not await self.process.wait(timeout_s):
            self.process.send(signal.SIGKILL)
            await self.process.wait(_ENDING_S)

    def close(self) -> None:
        """Forget it; a process that still runs takes it as the end of its parent."""
        self.control.close(asyncio.get_running_loop())
        self.process.close()
