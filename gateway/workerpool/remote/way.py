"""A way to a pool that another process runs: what is the same for gRPC and for a Unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.workerpool.link import LinkEvents
    from gateway.workerpool.seam import Link
    from wire.frames import Hello

DESCRIBE_TIMEOUT_S = 5.0
# A worker that is being started again may keep a gateway waiting; the pool answers before this.
OPEN_TIMEOUT_S = 40.0
END_TIMEOUT_S = 5.0


class PoolUnreachable(Exception):
    """The pool does not answer, or is not the one that was to be met; the message says why."""


class SlotAway(Exception):
    """The pool answers, but its worker cannot be had now, or not by this gateway."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a pool says of itself."""

    node: str
    release: str
    slots: tuple[str, ...]


class PoolLink(Protocol):
    """A link as its owner has it: what the seam says, and how it begins and ends."""

    @property
    def link(self) -> Link: ...

    @property
    def busy(self) -> bool:
        """Whether a batch is not answered yet."""
        ...

    @property
    def way_lost(self) -> bool:
        """Whether the link was lost without the worker: what that was doing is not the cause."""
        ...

    async def greet(self, timeout_s: float) -> Hello:
        """Exchange hellos and return the worker's. Raises WorkerLost, ProtocolError, TimeoutError."""
        ...

    async def move(self) -> None:
        """Carry what has to be carried until the link is lost, then give everything back."""
        ...

    async def reason_of_end(self, reason: str) -> str:
        """Return what is known better than `reason` of why the link was lost."""
        ...

    def drain(self) -> None:
        """Take no more batches; those that were sent are answered."""
        ...

    def close(self, reason: str) -> None:
        """Close the link and report it lost, once."""
        ...


class Way(Protocol):
    """Its text says where it leads."""

    async def describe(self) -> Description:
        """Ask the pool what it has. Raises PoolUnreachable."""
        ...

    async def open(self, slot: str, events: LinkEvents, on_goodbye: Callable[[str], None]) -> PoolLink:
        """Connect to the worker of a slot, which the pool starts where it is not there. `on_goodbye` is
        called when the pool asks the gateway to leave.

        Raises:
            PoolUnreachable
            SlotAway
        """
        ...

    async def end(self, slot: str, pid: int, reason: str) -> None:
        """Have a worker ended that hangs, unless it is another process by now. Raises PoolUnreachable."""
        ...
