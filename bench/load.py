"""What the bench wants of a load generator, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.samples import Body

FRAME_HEADER_BYTES = 5  # gRPC's flag and length before each message


class LoadFailed(Exception):
    """The load did not finish, or there is no generator for it."""


@dataclass(frozen=True)
class Job:
    """`connections` x `streams` requests in flight for each body, until `requests_each` of each are answered.

    With a `rate_per_s` it is an open loop instead: Poisson arrivals for `seconds`, whatever the server does.
    """

    address: str
    bodies: Sequence[Body]
    folder: Path  # for files
    cpu: int  # where the generator runs
    connections: int
    streams: int
    requests_each: int = 0
    rate_per_s: float | None = None
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        return self.requests_each * len(self.bodies)


@dataclass(frozen=True)
class Loaded:
    """`sent` is what the server should have counted; `cpu_us` is the generator's own time per request.
    `wrong` says why the figures do not count, empty if every request was answered with as many bytes as
    were wanted."""

    sent: int
    wall_s: float
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    wrong: tuple[str, ...] = ()


class LoadGenerator(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def has_open_loop(self) -> bool: ...

    def describe(self, job: Job) -> str:
        """What is run, in one line."""

    def run(self, job: Job, answer_bytes: Sequence[int] | None) -> Loaded:
        """`answer_bytes` are the framed lengths of right answers, in the order of the bodies; None: not known
        yet. Raises LoadFailed."""
