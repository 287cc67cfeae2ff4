"""Restart in place: a gateway starts the one that is to follow it, and goes when that one serves.

Afterwards this process becomes the supervisor of its successor (`leave_to_supervisor`), so that whoever
started it sees it go on under the same number. A successor that cannot serve changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

from gateway.child import Child, ChildFailed
from gateway.estate import Estate, Handle
from gateway.settings import to_json
from gateway.supervisor import READY_LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.control import Ready
    from gateway.ports import Ports
    from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

_ENDING_S = 5.0


class Succession:
    """`folder` gives that of the pool, once there is one. `hand_over` is called once, when a successor
    serves.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        ports: Ports,
        folder: Callable[[], Path],
        machine: tuple[int, ...],
        hand_over: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._folder = folder
        self._machine = machine
        self._hand_over = hand_over
        self._asked = asyncio.Event()
        self._successor: Child | None = None
        self._told = False
        self._again = False

    def ask(self) -> None:
        """Start a successor, unless one is starting. One that serves already will be followed itself."""
        self._again = self._successor is not None
        self._asked.set()

    async def run(self) -> None:
        """Wait to be asked, until there is a successor that serves. If cancelled, none is left."""
        while True:
            await self._asked.wait()
            log.info("restart in place: a successor starts")
            try:
                child, ready = await self._start()
            except (ChildFailed, OSError) as error:
                log.error("restart in place: %s; this process serves on", error)
                self._asked.clear()
            else:
                log.info("process %d follows: %s", child.process.pid, ready)
                self._successor = child
                self._hand_over()
                return

    async def _start(self) -> tuple[Child, Ready]:
        child = Child.start(
            self._settings, self._ports.grpc, self._ports.http[0], self._folder(), self._machine, waits=True
        )
        try:
            return child, await child.wait_ready(READY_LIMIT_S)
        except BaseException:
            child.process.send(signal.SIGTERM)
            await child.end(_ENDING_S)
            child.close()
            raise

    def pass_signal(self) -> None:
        """This process is told to end: so is the one that has followed it."""
        if self._successor is not None:
            self._told = True
            self._successor.process.send(signal.SIGTERM)

    @property
    def estate(self) -> Estate | None:
        """What a supervisor needs to go on, None where nobody has followed."""
        child = self._successor
        if child is None or child.ready is None:
            return None
        return Estate(
            settings=to_json(self._settings),
            machine=self._machine,
            grpc_fds=tuple(sock.fileno() for sock in self._ports.grpc),
            http_fd=self._ports.http[0].fileno(),
            folder=str(self._folder()),
            temporary=self._settings.pool_folder is None,
            child=Handle(child.process.pid, child.control.fileno(), child.ready),
            told=self._told,
            asked=self._again,
        )
