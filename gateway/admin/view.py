"""What the admin service needs of the process around it: frozen answers to read, and two things to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.lifecycle.routes import ServedModel
    from gateway.routing.table import RouteTable
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.recent import Recent as RecentRequests


class Stopping(Exception):
    """The process ends already: it cannot take requests again."""

    def __init__(self) -> None:
        super().__init__("this gateway is stopping; it cannot take requests again")


@dataclass(frozen=True)
class Identity:
    """`frontend` is native or grpcio; `started_ns` is of the injected clock."""

    gateway: str
    node: str
    release: str
    pid: int
    frontend: str
    started_ns: int


@dataclass(frozen=True)
class ConfigurationState:
    """`source` is text without credentials. `away` says why the source cannot be reached, '' while it can;
    `heard_s` is how long ago it was heard last. `from_disk`: in force is the last good state, kept on disk.
    """

    source: str
    away: str = ""
    away_s: float = 0.0
    from_disk: bool = False
    desired: int = 0
    applied: int = 0
    heard_s: float = 0.0
    problems: Mapping[str, str] = field(default_factory=dict)  # {what: what is wrong with it}


@dataclass(frozen=True)
class SlotState:
    """`busy_ns` is the capacity that runs have used since the start, None where nobody counts it."""

    slot: str
    node: str
    device: str
    state: Literal["up", "down", "unused"]
    capacity: int
    reason: str = ""  # why it is down
    restarts: int = 0
    pid: int = 0
    memory_bytes: int = 0  # of the worker process
    memory_limit_bytes: int | None = None  # of what models may take there
    batches_in_flight: int = 0
    busy_ns: int | None = None


@dataclass(frozen=True)
class View:
    """What there is to see. All of it is read on the event loop's thread, and never changed here."""

    identity: Identity
    accounts: Accounts
    served: Mapping[str, ServedModel]
    table: Callable[[], RouteTable]
    slots: Callable[[], Sequence[SlotState]]
    configuration: Callable[[], ConfigurationState]
    addresses: Callable[[], Mapping[str, str]]  # {grpc, http, ...: where it listens}
    readiness: Callable[[], tuple[bool, Sequence[str]]]  # and why not
    draining: Callable[[], bool]
    in_flight: Callable[[], int]  # requests that wait or run
    recent: RecentRequests
    notes: Callable[[], Sequence[str]] = tuple  # what is wrong beside models and configuration


@dataclass(frozen=True)
class Controls:
    """`drain` refuses new requests, or takes them again: then it raises Stopping where the process ends
    already. `stop` drains and ends the process; called again, it ends it at once.
    """

    drain: Callable[[bool], None]
    stop: Callable[[], None]
