"""Whom a gateway takes for a worker elsewhere, and how it shows who it is itself."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from pathlib import Path


class TrustInvalid(Exception):
    """The options do not fit together, or a file cannot be used."""


@dataclass(frozen=True, slots=True)
class Trust:
    """`identities` are the names that pools may have; what a registration claims is compared with these, and
    the certificate, which `ca` must have signed, with the claim. `certificate` and `key` are the gateway's
    own, all three PEM files. `insecure` lets it connect without TLS beyond this machine.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    identities: frozenset[str] = frozenset()
    insecure: bool = False

    def check(self) -> None:
        """Raises TrustInvalid."""
        files = (self.ca, self.certificate, self.key)
        if any(files) and not all(files):
            raise TrustInvalid("the CA of workers, the certificate and the key for them belong together")
        if any(files) != bool(self.identities):
            raise TrustInvalid("TLS to workers needs a CA, a certificate, a key and the workers' identities")
        try:
            for file in filter(None, files):
                file.read_bytes()
        except OSError as error:
            raise TrustInvalid(f"{error.filename} cannot be read: {error.strerror}") from error

    def refusal(self, host: str, identity: str) -> str:
        """Return why a pool at an address on TCP must not be connected to, '' where it may."""
        if identity:
            if self.ca is None:
                return "it has a certificate, and this gateway has no CA to check it with"
            if identity not in self.identities:
                return f"its identity {identity} is none of those that are allowed"
            return ""
        if self.insecure or (is_loopback(host) and self.ca is None):
            return ""
        if self.ca is not None:
            return "it has no TLS, and so no identity that could be allowed"
        return "it has no TLS, and is not on this machine"

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError: a file cannot be read."""
        assert self.ca is not None, "only what refusal lets pass"
        assert self.certificate is not None, "checked"
        assert self.key is not None, "checked"
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, whatever its name service says."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
