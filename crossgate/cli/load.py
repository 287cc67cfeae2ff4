"""The native load generator, with types.

What the fields of a configuration and of a report mean stands in native/src/load/config.rs and report.rs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import msgspec

from gateway.extension import find_extension

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class LoadUnavailable(Exception):
    """There is no native extension that could measure; the message says why."""


@dataclass(frozen=True)
class ClosedLoop:
    """Always so many requests in flight on each connection."""

    streams: int


@dataclass(frozen=True)
class OpenLoop:
    """Poisson arrivals, whatever the server does; what is due while `max_in_flight` are out waits."""

    rate_per_s: float
    max_in_flight: int = 1024


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Either `duration_s` or `requests`. Shares are of all requests; malformed ones are made of the last
    `malformed_bodies` bodies. `timeout_ms` is sent with each request."""

    target: str  # host:port or unix:/path, without TLS
    mode: ClosedLoop | OpenLoop
    connections: int = 1
    threads: int = 1
    warm_up_s: float = 0.0
    duration_s: float | None = None
    requests: int | None = None
    malformed_bodies: int = 0
    malformed_share: float = 0.0
    cancel_share: float = 0.0
    cancel_within_ms: float = 5.0
    timeout_ms: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    sample: int = 0

    def to_json(self) -> str:
        kind = "closed" if isinstance(self.mode, ClosedLoop) else "open"
        return json.dumps({**asdict(self), "mode": {kind: asdict(self.mode)}})


class Latency(msgspec.Struct, frozen=True):
    """Microseconds, of `count` OK answers."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float = msgspec.field(name="p99.9")
    max: float


class Second(msgspec.Struct, frozen=True):
    """`second` counts from the start of the window; those of the warm-up are negative."""

    second: int
    requests_per_s: float
    p50_us: float | None
    p99_us: float | None
    unexpected: int
    in_flight: int


class Cancelled(msgspec.Struct, frozen=True):
    sent: int
    answered_first: int


class Malformed(msgspec.Struct, frozen=True):
    """`rejected` with INVALID_ARGUMENT, as wanted."""

    sent: int
    rejected: int
    outcomes: dict[str, int]


class Unexpected(msgspec.Struct, frozen=True):
    outcome: str
    message: str
    count: int


class BodyAnswers(msgspec.Struct, frozen=True):
    """Messages without gRPC's prefix."""

    size_bytes: int
    malformed: bool
    ok: int
    answer_bytes_min: int | None
    answer_bytes_max: int | None


class Schedule(msgspec.Struct, frozen=True):
    """Of an open loop; `late_starts` are over 1 ms."""

    late_starts: int
    late_start_max_us: float
    held_back: int
    never_started: int


class Connections(msgspec.Struct, frozen=True):
    max_streams: int | None
    lost: int
    last_failure: str | None


class Generator(msgspec.Struct, frozen=True):
    """What the generator itself took; `cpu_share` is of one processor."""

    cpu_us_per_request: float
    cpu_share: float


class WarmUp(msgspec.Struct, frozen=True):
    unexpected: int


class LoadReport(msgspec.Struct, frozen=True):
    """Requests that were due within the window, whenever their answers came. `outcomes` and `latency_us`
    leave out malformed and cancelled ones."""

    requests_per_s: float
    window_s: float
    requests: int
    outcomes: dict[str, int]
    latency_us: Latency | None
    unexpected: int
    errors: list[Unexpected]
    cancelled: Cancelled
    malformed: Malformed
    sent_bytes: int
    received_bytes: int
    bodies: list[BodyAnswers]
    sampled_bodies: list[int]
    sent_in_all: int
    ok_in_all: int
    warm_up: WarmUp
    schedule: Schedule | None
    connections: Connections
    generator: Generator
    series: list[Second]


@dataclass(frozen=True)
class LoadResult:
    """`answers` are the sampled ones, of the bodies that `report.sampled_bodies` says; `json` is the report
    as the generator gave it, with the configuration."""

    report: LoadReport
    answers: list[bytes]
    json: str


def check_load_available() -> None:
    """Raises LoadUnavailable; a debug build would measure itself."""
    extension = find_extension()
    if extension.module is None:
        raise LoadUnavailable(f"the native extension is not there: {extension.reason}")
    if extension.profile != "release":
        raise LoadUnavailable(
            f"the native extension is a {extension.profile} build, which measures nothing but itself: "
            "build it again for release"
        )


def run_load(
    config: LoadConfig, bodies: Sequence[bytes], on_second: Callable[[Second], None] | None = None
) -> LoadResult:
    """Blocks until the load has ended; other threads go on. What `on_second` raises ends it.

    Raises:
        ConnectionError: no connection, at the start or for long.
        LoadUnavailable
        ValueError: the configuration cannot be used.
    """
    check_load_available()
    from gateway import _native

    def progress(text: str) -> None:
        if on_second is not None:
            on_second(msgspec.json.decode(text, type=Second))

    text, answers = _native.load(config.to_json(), list(bodies), progress)
    return LoadResult(msgspec.json.decode(text, type=LoadReport), answers, text)
