"""Which gateway a command is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossgate.admin import AdminClient
from crossgate.cli import output
from crossgate.cli.remote import credentials_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class GatewayAddress:
    """`unix:/path` or `host:port` of an admin service, and the files for TLS."""

    address: str
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None


# From what `--gateway` says, '' where it says nothing.
Resolve = Callable[[str], GatewayAddress]


def gateway_here(text: str) -> GatewayAddress:
    """Return the gateway that is named, or the only one of this user that runs here; fails with what there
    is.
    """
    from gateway.admin.address import SUFFIX, default_path, sockets_here

    if text:
        if text.startswith(("/", "./")):
            return GatewayAddress(f"unix:{text}")
        if ":" not in text:
            return GatewayAddress(f"unix:{default_path(text)}")
        return GatewayAddress(text)
    found = sockets_here()
    if not found:
        output.fail(
            "no gateway of yours runs here; start one with `crossgate serve`, or name another's admin "
            "service with --gateway HOST:PORT or unix:/PATH"
        )
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix(SUFFIX) for path in found)
        output.fail(f"several gateways run here; say which with --gateway: {names}")
    return GatewayAddress(f"unix:{found[0]}")


def open_client(resolve: Resolve, gateway: str, tls: Sequence[Path | None]) -> AdminClient:
    """Connect to a gateway; `tls` are CA, certificate and key where the options give them."""
    found = resolve(gateway)
    ca, certificate, key = tls
    credentials = credentials_of(
        ca or found.tls_ca, certificate or found.tls_certificate, key or found.tls_key
    )
    return AdminClient(found.address, credentials=credentials)
