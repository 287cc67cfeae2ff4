"""Credentials for a gateway that serves TLS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from os import PathLike


def tls_credentials(
    ca: str | PathLike[str] | None = None,
    *,
    certificate: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """For `credentials` of a client, from PEM files. The gateway's certificate must be signed by `ca`, by one
    of the system's authorities without it, and name the host of the endpoint. `certificate` and `key` are the
    client's own, where the gateway asks for one.

    Raises OSError for a file that cannot be read, and ValueError unless the client's own come together.
    """
    if (certificate is None) != (key is None):
        raise ValueError("a certificate and its key belong together")
    return grpc.ssl_channel_credentials(_content(ca), _content(key), _content(certificate))


def _content(path: str | PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
