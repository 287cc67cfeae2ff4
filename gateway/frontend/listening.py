"""Where a front end listens and what it asks of connections; the same for every front end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# How long after the end of its age a connection may live on for what it has in flight.
CONNECTION_AGE_GRACE_S = 30.0


class ListenerInvalid(Exception):
    """What was asked for cannot be listened on; the message says why."""


@dataclass(frozen=True)
class Tls:
    """PEM files. With `client_ca`, clients must present a certificate that it has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Listening:
    """`unix` is the path of a socket beside the TCP port, without TLS. `fds` are inherited TCP sockets that
    listen already, instead of `host` and `port`; port 0 takes a free one. A connection that is older than
    `max_connection_age_s` is asked to go, and a ping goes out after `keepalive_s` without a sign of the
    peer; 0 is never.
    """

    host: str
    port: int
    max_message_bytes: int
    max_held_bytes: int
    unix: str | None = None
    fds: tuple[int, ...] = ()
    tls: Tls | None = None
    max_concurrent_streams: int = 1024  # of one connection
    max_connection_age_s: float = 0.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
