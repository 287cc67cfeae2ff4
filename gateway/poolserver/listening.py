"""Where a pool listens, what it tells gateways of that, and whom it lets in: from its settings, checked."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.store import StoreInvalid
from gateway.poolserver.errors import PoolInvalid
from gateway.poolserver.identity import identity_in
from gateway.workerpool.remote.address import PoolAddressInvalid, parse_host_and_port, parse_pool_address
from gateway.workerpool.remote.trust import is_loopback

if TYPE_CHECKING:
    from gateway.poolserver.settings import PoolSettings
    from gateway.workerpool.remote.address import PoolAddress


@dataclass(frozen=True, slots=True)
class PoolListening:
    """`advertised` has port 0 where any free one is taken. `allowed` None lets every gateway in."""

    address: PoolAddress
    advertised: PoolAddress
    identity: str
    allowed: frozenset[str] | None

    @classmethod
    def of(cls, settings: PoolSettings) -> PoolListening:
        """Raises PoolInvalid."""
        try:
            address = parse_pool_address(settings.listen)
            if address.path:
                return cls._on_this_machine(settings, address)
            identity, allowed = _security(settings, address)
            return cls(address, _advertised(settings, address), identity, allowed)
        except PoolAddressInvalid as error:
            raise PoolInvalid(str(error)) from error

    @classmethod
    def _on_this_machine(cls, settings: PoolSettings, address: PoolAddress) -> PoolListening:
        if settings.tls is not None or settings.allowed_gateways or settings.insecure or settings.advertise:
            raise PoolInvalid(
                "a Unix socket has neither TLS nor names nor another address: its users are those who may "
                "open it"
            )
        return cls(address, address, "", None)

    def default_folder(self) -> Path | None:
        """Return where the sockets of workers go: the same for the pool that follows this one, which finds
        the workers there. None for an address that is not known yet.
        """
        if not self.address.path and not self.address.port:
            return None
        digest = hashlib.sha256(str(self.address).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"crossgate-pool-{os.geteuid()}-{digest}"


def _security(settings: PoolSettings, address: PoolAddress) -> tuple[str, frozenset[str] | None]:
    """Return the pool's identity and the gateways that are let in. Raises PoolInvalid."""
    if settings.tls is None:
        if settings.identity or settings.allowed_gateways:
            raise PoolInvalid("names of gateways and pools are in certificates: --tls-cert is missing")
        if not is_loopback(address.host) and not settings.insecure:
            raise PoolInvalid(
                f"{address} is open to other machines: give --tls-cert, --tls-key, --tls-client-ca and "
                "--allow-gateway, or --insecure"
            )
        return "", None
    if settings.insecure:
        raise PoolInvalid("--insecure is for a pool without TLS")
    if settings.tls.client_ca is None:
        raise PoolInvalid("TLS is mutual here: --tls-client-ca, who has signed gateways, is missing")
    if not settings.allowed_gateways and not is_loopback(address.host):
        raise PoolInvalid("no gateway may connect: name those that may with --allow-gateway")
    return identity_in(settings.tls.certificate, settings.identity), settings.allowed_gateways or None


def _advertised(settings: PoolSettings, address: PoolAddress) -> PoolAddress:
    """Raises PoolInvalid, PoolAddressInvalid."""
    if settings.advertise:
        return parse_host_and_port(settings.advertise)
    if not _is_wildcard(address.host):
        return address
    host = _toward(settings.store)
    if not host:
        raise PoolInvalid(
            f"{address} says not which address gateways are to connect to: give it with --advertise host:port"
        )
    return parse_host_and_port(f"{host}:{address.port}")


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def _toward(store: str) -> str:
    """Return this machine's address as an etcd sees it, '' where the store is a file, or on this machine."""
    if not store.startswith(("etcd://", "etcds://")):
        return ""
    try:
        endpoint = EtcdAddress.parse(store).endpoints[0]
    except StoreInvalid as error:
        raise PoolInvalid(str(error)) from error
    host, _, port = endpoint.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, _, _, target = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing
            local = str(probe.getsockname()[0])
    except OSError:
        return ""
    if is_loopback(local):
        return ""
    return f"[{local}]" if ":" in local else local
