"""The process's settings: one struct, filled by the command line. The environment is read nowhere else but
by OpenTelemetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class GatewaySettings:
    """`slots` empty: one CPU slot, and one for each other device that is found. `cpus` are the processors
    of the gateway process itself, empty for all. Port 0 takes a free one."""

    models: Path
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
