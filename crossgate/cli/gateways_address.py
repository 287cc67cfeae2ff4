"""Which gateway a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossgate.cli import output
from crossgate.cli.gateways_tls import credentials_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossgate.admin import AdminClient


_SCHEME = re.compile(r"(?:https?|grpcs?|tcp|etcds?)://")  # gRPC has some of its own, such as dns:///


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
    from gateway.admin.address import SUFFIX, sockets_here

    if text:
        if text.startswith(("/", "./")):
            return GatewayAddress(f"unix:{text}")
        if ":" not in text:
            return _named(text)
        return GatewayAddress(checked_address("--gateway", text))
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


def _named(name: str) -> GatewayAddress:
    from gateway.admin.address import SUFFIX, default_path, sockets_here
    from gateway.config.wording import did_you_mean, listed, quote

    path, found = default_path(name), sockets_here()
    if path not in found:
        names = [each.name.removesuffix(SUFFIX) for each in found]
        there = did_you_mean(name, names) or (f"; there is {listed(names)}" if names else "; none does")
        output.fail(f"no gateway of yours called {quote(name)} runs here{there}")
    return GatewayAddress(f"unix:{path}")


def checked_address(option: str, address: str) -> str:
    """Return the address of a gateway where it can be one. Fails where it has a scheme, as if it were a URL,
    or no port: gRPC would look both up as hosts, or take port 443.
    """
    scheme = _SCHEME.match(address)
    if scheme is not None:
        rest = address[scheme.end() :].rstrip("/")
        output.fail(f"{option} {address}: expected HOST:PORT or unix:/PATH, no URL; did you mean {rest}?")
    if ":" not in address:
        output.fail(f"{option} {address}: expected HOST:PORT or unix:/PATH; the port is missing")
    return address


def open_client(resolve: Resolve, gateway: str, tls: Sequence[Path | None]) -> AdminClient:
    """Connect to a gateway; `tls` are CA, certificate and key where the options give them."""
    from crossgate.admin import AdminClient

    found = resolve(gateway)
    ca, certificate, key = tls
    credentials = credentials_of(
        ca or found.tls_ca, certificate or found.tls_certificate, key or found.tls_key
    )
    return AdminClient(found.address, credentials=credentials)
