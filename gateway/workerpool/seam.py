"""What the rest of the gateway needs of a slot's worker and of a link to it, wherever the worker runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from wire.frames import Body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.call import BatchInput
    from gateway.workerpool.slot import Slot
    from wire.frames import Kind, TensorAt

T = TypeVar("T", bound=Body)


class Link(Protocol):
    """A connection to a worker. It is lost once, and does nothing any more afterwards."""

    async def request(self, kind: Kind, body: Body, answer: type[T], timeout_s: float) -> T:
        """Ask the worker for something that takes long and return its answer.

        Raises:
            RequestRefused: it failed, with the worker's words.
            WorkerLost: the worker went away meanwhile.
            TimeoutError: no answer in time.
        """
        ...

    def run(
        self,
        batch: int,
        servable: int,
        rows: int,
        inputs: Sequence[BatchInput],
        outputs: tuple[str, ...],
        deadline_ns: int,
        *,
        alone: bool = False,
    ) -> None:
        """Send a batch. The inputs must not change until it is answered.

        Raises:
            ArenaFull: there is no room now, or the link is lost; nothing was sent.
            RegionTooLarge: there never will be.
        """
        ...

    def cancel(self, batch: int) -> None:
        """Ask that a batch is not started; it is answered all the same."""
        ...

    def forget(self, servable: int) -> None:
        """Unload a servable without waiting for it."""
        ...

    def view(self, tensor: TensorAt) -> memoryview:
        """Return an output's bytes, valid until `free`.

        Raises:
            ArenaInvalid: the worker named bytes that it never shared.
        """
        ...

    def free(self, outputs: Sequence[TensorAt]) -> None:
        """The outputs of a batch have been read."""
        ...

    @property
    def arena_used_bytes(self) -> int:
        """What the inputs of unanswered batches take."""
        ...

    @property
    def arena_bytes(self) -> int:
        """The shared memory that there is for inputs now, 0 where nothing is shared."""
        ...


class SlotWorker(Protocol):
    """The worker of one slot, kept running or kept in touch with by `supervise`.

    `restarts` counts those after the first that this gateway has started or met. `down_reason` is why it was
    not there the last time; `way_lost`: only the way to it was lost, and nothing that it did is the cause.
    """

    restarts: int
    pid: int | None
    down_reason: str
    way_lost: bool

    @property
    def slot(self) -> Slot: ...

    @property
    def resident_bytes(self) -> int:
        """Its resident memory, 0 where that is not known."""
        ...

    async def supervise(self) -> None:
        """Keep it until cancelled, then leave it."""
        ...

    def kill(self, reason: str) -> None:
        """End a worker that hangs; it is lost with this reason, and started again."""
        ...
