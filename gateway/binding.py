"""From settings to where a gateway listens and keeps its state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.admin.address import default_path
from gateway.admin.server import AdminListening
from gateway.config.store.opening import describe
from gateway.frontend.listening import ListenerInvalid, Listening, Tls

if TYPE_CHECKING:
    from gateway.ports import Ports
    from gateway.settings import GatewaySettings


def admin_listening(settings: GatewaySettings, name: str, *, replace: bool) -> AdminListening:
    """Raises ListenerInvalid."""
    asked = settings.admin or f"unix:{default_path(name)}"
    if asked.startswith("unix:/"):
        return AdminListening(unix=Path(asked.removeprefix("unix:")), replace=replace)
    host, colon, port = asked.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ListenerInvalid(f"--admin {asked!r} is none of unix:/path, host:port and off")
    tls = None
    if settings.admin_tls_certificate is not None and settings.admin_tls_key is not None:
        tls = Tls(settings.admin_tls_certificate, settings.admin_tls_key, settings.admin_tls_client_ca)
    return AdminListening(host=host.strip("[]"), port=int(port), tls=tls, replace=replace)


def state_path(settings: GatewaySettings) -> Path:
    """Return where the last good state of the store is kept."""
    assert settings.store is not None, "only a store needs it"
    folder = settings.state_folder or Path(
        os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "crossgate"
    )
    return folder / f"last-good-{hashlib.sha256(describe(settings.store).encode()).hexdigest()[:12]}.db"


def grpc_listening(settings: GatewaySettings, ports: Ports | None) -> Listening:
    """The front end gets copies of the ports, which it closes."""
    fds = () if ports is None else tuple(sock.dup().detach() for sock in ports.grpc)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = Tls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return Listening(
        settings.host,
        settings.grpc_port,
        settings.max_message_bytes,
        settings.max_held_bytes,
        unix=settings.grpc_unix if ports is None else None,
        fds=fds,
        tls=tls,
        max_concurrent_streams=settings.max_concurrent_streams,
        max_connection_age_s=settings.max_connection_age_s,
        keepalive_s=settings.keepalive_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
    )


def certificate_files(settings: GatewaySettings) -> dict[str, Path]:
    """{use: PEM file} of the certificates that this gateway shows."""
    files = {
        "grpc": settings.tls_certificate,
        "admin": settings.admin_tls_certificate,
        "worker": settings.worker_certificate,
    }
    return {use: file for use, file in files.items() if file is not None}
