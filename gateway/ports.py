"""The listening sockets of a gateway, opened once and passed on to the processes that serve behind them.

Whoever starts another process keeps its own copies open, so no connection in a socket's queue is lost while
one process follows another.
"""

from __future__ import annotations

import itertools
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.settings import GatewaySettings

_BACKLOG = 1024
_MAX_PORT = 65535


@dataclass(frozen=True)
class Ports:
    """`grpc` is for TCP and, where there is one, the Unix socket at `unix`; all processes accept from them.
    `http` has one for each process.
    """

    grpc: tuple[socket.socket, ...]
    http: tuple[socket.socket, ...]
    unix: str | None = None

    @classmethod
    def open(cls, settings: GatewaySettings) -> Self:
        """Raises OSError with the address that cannot be listened on."""
        grpc: list[socket.socket] = []
        http: list[socket.socket] = []
        unix = None
        try:
            grpc.append(_open_tcp(settings.host, settings.grpc_port))
            if settings.grpc_unix is not None:
                grpc.append(_open_unix(settings.grpc_unix))
                unix = settings.grpc_unix
            ports = http_ports(settings.http_port, grpc[0].getsockname()[1], settings.processes)
            http.extend(_open_tcp(settings.host, port) for port in ports)
        except OSError:
            cls(tuple(grpc), tuple(http), unix).remove()
            raise
        return cls(tuple(grpc), tuple(http), unix)

    @classmethod
    def of(cls, grpc: Iterable[int], http: Iterable[int], unix: str | None = None) -> Self:
        """Take inherited descriptors over."""
        return cls(tuple(map(_inherited, grpc)), tuple(map(_inherited, http)), unix)

    def remove(self) -> None:
        """Close them all, for good: nobody else serves behind them."""
        for sock in (*self.grpc, *self.http):
            sock.close()
        if self.unix is not None:
            try:
                os.unlink(self.unix)
            except OSError:
                pass


def _inherited(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


def http_ports(first: int, grpc: int, processes: int) -> list[int]:
    """Return a port for each process: consecutive ones without that of gRPC, or free ones if the first is 0.

    Raises:
        OSError: there are not so many.
    """
    if first == 0:
        return [0] * processes
    following = (port for port in itertools.count(first + 1) if port != grpc)
    ports = [first, *itertools.islice(following, processes - 1)]
    if ports[-1] > _MAX_PORT:
        raise OSError(f"{processes} ports for HTTP from {first} on go beyond {_MAX_PORT}")
    return ports


def _open_tcp(host: str, port: int) -> socket.socket:
    """Listen on the first of the host's addresses that can be listened on."""
    where = f"{host}:{port}"
    failure: OSError | None = None
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OSError(f"cannot listen on {where}: {error.strerror or error}") from error
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise OSError(f"cannot listen on {where}: {failure and failure.strerror}") from failure


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on. Raises OSError when something else is there."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError("it is there and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError("another process listens there")
