"""The options for TLS towards a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossgate.cli import output

if TYPE_CHECKING:
    from pathlib import Path

    import grpc


def credentials_of(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> grpc.ChannelCredentials | None:
    """Read the options; None without any. Fails where a file cannot be read."""
    if ca is None and certificate is None and key is None:
        return None
    from crossgate import tls_credentials

    try:
        return tls_credentials(ca, certificate=certificate, key=key)
    except (OSError, ValueError) as error:
        output.fail(f"TLS: {error}")
