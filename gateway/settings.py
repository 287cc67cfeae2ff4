"""The process's settings: one struct, filled by the command line. The environment is read nowhere else but
by OpenTelemetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

FRONT_ENDS = ("auto", "native", "grpcio")


@dataclass(frozen=True)
class Inheritance:
    """What a process gets from the one that started it, as descriptors: the listening sockets for gRPC, the
    one for HTTP, and a socket to talk to it. `machine` are the processors that slots may name. While another
    process serves, it `waits` to listen until it is ready.
    """

    listen_fds: tuple[int, ...]
    http_fd: int
    control_fd: int
    machine: tuple[int, ...]
    waits: bool = False


@dataclass(frozen=True)
class GatewaySettings:
    """`slots` empty: one CPU slot, and one for each other device that is found; ("none",): no slots here.
    `cpus` are the processors of the gateway process itself, empty for all. Port 0 takes a free one.
    `frontend` is auto, native or grpcio. The certificate and its key belong together; both are PEM files, as
    the client's CA. 0 as the age of a connection is no limit, and as keepalive no pings. Gateways with one
    `pool_folder` share their workers; None is one of its own. Desired state comes from the directory `models`
    or from the `store`, a URL. `node` is this machine's name, by default the host's; `name` this gateway's,
    by default the node's and its HTTP port. The last good state of a store is kept in `state_folder`. The
    admin service listens at `admin`, unix:/path or host:port or off, by default on a socket of the gateway's
    name. The files and names of `worker_` are for TLS towards pools elsewhere. `inherited` is None
    in the process that the user started.
    """

    models: Path | None = None
    store: str | None = None
    slots: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    max_message_bytes: int = 64 << 20
    max_held_bytes: int = 1 << 30
    drain_s: float = 30.0
    segment_bytes: int = 16 << 20
    budget_bytes: int = 256 << 20
    log_level: str = "info"
    trace_ratio: float = 0.01
    triton_metrics: bool = False
    frontend: str = "auto"
    grpc_unix: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    max_concurrent_streams: int = 1024
    max_connection_age_s: float = 0.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    processes: int = 1
    pool_folder: Path | None = None
    node: str = ""
    name: str = ""
    state_folder: Path | None = None
    admin: str = ""
    admin_tls_certificate: Path | None = None
    admin_tls_key: Path | None = None
    admin_tls_client_ca: Path | None = None
    worker_ca: Path | None = None
    worker_certificate: Path | None = None
    worker_key: Path | None = None
    worker_identities: tuple[str, ...] = ()
    insecure_workers: bool = False
    inherited: Inheritance | None = None


def to_json(settings: GatewaySettings) -> str:
    """Write settings for a process that is to be started."""
    return msgspec.json.encode(settings, enc_hook=str).decode()


def from_json(text: str) -> GatewaySettings:
    """Read settings; what another release wrote and this one does not know is passed over.

    Raises:
        msgspec.DecodeError: they are none.
    """
    return msgspec.json.decode(text, type=GatewaySettings, dec_hook=_read)


def _read(type_: type, value: object) -> object:
    if type_ is Path:
        return Path(str(value))
    raise NotImplementedError(f"{type_} is no type of settings")
