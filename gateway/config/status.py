"""What comes back from gateways: who is there, and how far each model is. Written under the gateway's lease,
on transitions only; live figures are asked of the admin service instead.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import field

# DECLARED: it is loaded when the first request asks for it.
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE", "DECLARED"]


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a newer release adds is passed over."""


class SlotReport(Report, frozen=True):
    """A slot of a gateway's own pool."""

    slot: str
    device: str
    capacity: int
    cpus: tuple[int, ...] = ()


class Presence(Report, frozen=True):
    """`gateways/<gateway>`. `observed` is the highest revision of the configuration (models, overrides,
    policies, rollouts) whose effects are in force, or named in this gateway's status of the model. A model
    without a status entry then has nothing loaded and nothing wrong.
    """

    gateway: str
    node: str
    release: str
    grpc: str  # host:port
    admin: str  # unix:/path or host:port of the admin service
    pid: int
    started: str  # RFC 3339
    observed: int = 0
    draining: bool = False
    slots: tuple[SlotReport, ...] = ()
    runtimes: tuple[str, ...] = ()  # that are installed there


class VersionReport(Report, frozen=True):
    state: State
    reason: str = ""  # why it is not READY, or what is missing of it


class ModelReport(Report, frozen=True):
    """`status/<gateway>/<model>`. `revision` is at which the effective document that this gateway has seen
    last changed; its policy is in force. `applied` is that of the document whose routing is in force, 0 for
    none. While they differ, `waits` says for what. `problem`: the document of `revision` is not valid, and
    the one before it serves.
    """

    model: str
    revision: int
    applied: int = 0
    waits: tuple[str, ...] = ()
    problem: str = ""
    versions: dict[str, VersionReport] = field(default_factory=dict)
