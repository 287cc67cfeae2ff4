"""What a gateway leaves to the supervisor that takes its place: `python -P -m gateway.estate '<as JSON>'`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from gateway.child import Child
from gateway.control import Control, Ready
from gateway.ports import Ports
from gateway.process import Process
from gateway.settings import from_json
from gateway.supervisor import Supervisor
from gateway.telemetry import logs

if TYPE_CHECKING:
    from gateway.settings import GatewaySettings


class Handle(msgspec.Struct, frozen=True):
    """A running child, as it is passed on."""

    pid: int
    control_fd: int
    ready: Ready


class Estate(msgspec.Struct, frozen=True):
    """What a gateway leaves to the supervisor that takes its place. `settings` are JSON; `folder` is the
    pool's, and removed at the end if it is `temporary`. `told`: the child has been told to end; `asked`: it
    is to be followed by another one.
    """

    settings: str
    machine: tuple[int, ...]
    grpc_fds: tuple[int, ...]
    http_fd: int
    folder: str
    temporary: bool
    child: Handle
    told: bool
    asked: bool


def leave_to_supervisor(estate: Estate) -> NoReturn:
    """Become the supervisor of the gateway that has followed this one: who has started this process sees it
    go on under the same number. Signals that are `HANDLED` should be blocked: they are kept. Raises OSError.
    """
    for fd in (*estate.grpc_fds, estate.http_fd, estate.child.control_fd):
        os.set_inheritable(fd, True)
    text = msgspec.json.encode(estate).decode()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gateway.estate", text])


def main() -> int:
    """Go on as the supervisor of another gateway's child."""
    estate = msgspec.json.decode(sys.argv[1], type=Estate)
    settings = from_json(estate.settings)
    logs.configure(settings.log_level)
    ports = Ports.of(estate.grpc_fds, (estate.http_fd,), settings.grpc_unix)
    try:
        return asyncio.run(_gone_on(estate, settings, ports))
    finally:
        ports.remove()
        if estate.temporary:
            shutil.rmtree(estate.folder, ignore_errors=True)


async def _gone_on(estate: Estate, settings: GatewaySettings, ports: Ports) -> int:
    control = Control.of(estate.child.control_fd)
    child = Child(Process(estate.child.pid), control, estate.child.ready)
    supervisor = Supervisor(settings, ports, Path(estate.folder), estate.machine)
    supervisor.adopt(child, told=estate.told)
    if estate.asked:
        supervisor.restart()
    return await supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
