"""What a pool without a gateway is told: one struct, filled by the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.frontend.listening import Tls


@dataclass(frozen=True)
class PoolSettings:
    """`slots` empty: what is found, as for a gateway. `store` is a URL. `listen` is `unix:/path` or
    `grpc://host:port`; `advertise` is the host and port that gateways connect to, where that differs.
    `identity` is the name in the certificate that gateways are to expect. `allowed_gateways` are names in
    their certificates. Models stay for `grace_s` without a gateway. The files of one `folder` belong to one
    pool; None takes one that goes with `listen`.
    """

    store: str
    listen: str
    node: str
    slots: tuple[str, ...] = ()
    advertise: str = ""
    tls: Tls | None = None
    identity: str = ""
    allowed_gateways: frozenset[str] = frozenset()
    insecure: bool = False
    grace_s: float = 30.0
    drain_s: float = 30.0
    lease_s: float = 10.0
    segment_bytes: int = 16 << 20
    budget_bytes: int = 256 << 20
    folder: Path | None = None
    log_level: str = "info"
