"""What a measured gRPC server is to the rest of the bench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from bench.samples import Work


@dataclass(frozen=True)
class Placement:
    """Where things run. Only the model is pinned, with as many threads as the raw ONNX Runtime beside it
    gets: it is the model that is compared. Transports stay free to use all CPUs; the load generator keeps off
    the model's CPU."""

    model_cpu: int
    load_cpu: int
    threads: int = 1


@dataclass(frozen=True)
class Counts:
    """A server's own cumulative counts for one model."""

    requests: int
    batches: int
    failures: int


class Server(Protocol):
    """One server process tree. After `start` returned, a model answers at `address` until `stop`.

    `start` raises `StartFailed` (or `NotInstalled`, `ModelMissing`); `stop` may be called at any time.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """Names the back end, the mode and what is pinned."""

    @property
    def versions(self) -> dict[str, str]: ...

    @property
    def address(self) -> str: ...

    def start(self, work: Work, placement: Placement, folder: Path) -> None: ...

    def pids(self) -> frozenset[int]: ...

    def fixed_answer(self, request: bytes) -> bytes | None:
        """The very bytes that a server without a model answers; None: the model's outputs are wanted."""

    def counts(self) -> Counts | None:
        """None if the server keeps no counts."""

    def stop(self) -> None: ...
