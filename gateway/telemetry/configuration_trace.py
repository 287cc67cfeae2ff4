"""Changes of the configuration as traces: one for each model and revision, from the watch to the drain.

Guarantees: the trace id follows from the scope, the model and the revision, so that what several gateways do
about one change is one trace. What is open is bounded; a change that was not begun here costs a look-up.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Tracing

MAX_OPEN: Final = 256
MAX_STAGES: Final = 256  # of one change: a version on many slots has as many loads
MAX_TEXT_CHARS: Final = 1024

Result = Literal["applied", "failed", "refused", "superseded"]


class Stage(StrEnum):
    """In the order in which they happen; `SWITCH` is when requests get the new routing."""

    WATCH = "watch"
    VALIDATE = "validate"
    FETCH = "fetch"
    LOAD = "load"
    PROBE = "probe"
    WARM_UP = "warm up"
    SWITCH = "switch"
    DRAIN = "drain"


class StageTime(msgspec.Struct, frozen=True, gc=False):
    """One stage, of one version on one worker where it is about these."""

    stage: Stage
    start_ns: int
    end_ns: int
    version: str = ""
    worker: str = ""
    error: str = ""


class AppliedChange(msgspec.Struct, frozen=True):
    """A change that is over, with all that happened because of it. Times are monotonic nanoseconds."""

    trace_id: int
    model: str
    revision: int
    start_ns: int
    end_ns: int
    result: Result
    stages: tuple[StageTime, ...] = ()
    error: str = ""
    author: str = ""
    message: str = ""
    change_id: str = ""


class _Open:
    """A change that goes on."""

    __slots__ = ("author", "change_id", "error", "message", "result", "revision", "stages", "start_ns")

    def __init__(self, revision: int, start_ns: int, author: str, message: str, change_id: str) -> None:
        self.revision = revision
        self.start_ns = start_ns
        self.author = author
        self.message = message
        self.change_id = change_id
        self.stages: list[StageTime] = []
        self.result: Result | None = None  # once it is in force, or will not be: only drains may follow
        self.error = ""


class ConfigurationTraces:
    """`scope` tells apart configurations whose revisions have nothing to do with each other: the same for all
    gateways of one store. Without tracing nothing is kept. Called from the event loop's thread.
    """

    def __init__(self, tracing: Tracing, scope: str) -> None:
        self._tracing = tracing
        self._scope = scope
        self._open: dict[str, _Open] = {}  # {model: its change}, the oldest first

    def begin(
        self,
        model: str,
        revision: int,
        now_ns: int,
        *,
        author: str = "",
        message: str = "",
        change_id: str = "",
    ) -> None:
        """A change of a model was seen. One that goes on is superseded; the same revision again is not."""
        if not self._tracing.enabled:
            return
        before = self._open.get(model)
        if before is not None:
            if before.revision >= revision:
                return
            self._end(model, now_ns, "superseded")
        while len(self._open) >= MAX_OPEN:
            self._end(next(iter(self._open)), now_ns, "superseded")
        cut = slice(MAX_TEXT_CHARS)
        self._open[model] = _Open(revision, now_ns, author[cut], message[cut], change_id[cut])

    def record(
        self,
        model: str,
        stage: Stage,
        start_ns: int,
        end_ns: int,
        *,
        version: str = "",
        worker: str = "",
        error: str = "",
    ) -> None:
        """Add a stage of a model's change, if one goes on. It may have begun before the change was seen:
        a fetch for the revision before is none of this one, and is left out.
        """
        change = self._open.get(model)
        if change is None or len(change.stages) >= MAX_STAGES:
            return
        if stage is Stage.WATCH:
            change.start_ns = min(change.start_ns, start_ns)
        elif start_ns < change.start_ns and stage is not Stage.VALIDATE:
            return
        change.stages.append(StageTime(stage, start_ns, end_ns, version, worker, error[:MAX_TEXT_CHARS]))

    def settle(self, model: str, now_ns: int, error: str = "", *, refused: bool = False) -> None:
        """A model's change is in force, or will not be, for this reason. A drain may still be recorded,
        until `finish`."""
        change = self._open.get(model)
        if change is not None and change.result is None:
            change.result = "refused" if refused else "failed" if error else "applied"
            change.error = error[:MAX_TEXT_CHARS]

    def finish(self, model: str, now_ns: int) -> None:
        """Nothing more follows from a model's change: its spans are made. One that is not settled goes
        on."""
        change = self._open.get(model)
        if change is not None and change.result is not None:
            self._end(model, now_ns, change.result)

    def close(self, now_ns: int) -> None:
        """Make the spans of what is settled; at the end of the process."""
        for model in list(self._open):
            self.finish(model, now_ns)

    def _end(self, model: str, now_ns: int, otherwise: Result) -> None:
        change = self._open.pop(model)
        stages = tuple(change.stages)
        self._tracing.record(
            AppliedChange(
                trace_id_of(self._scope, model, change.revision),
                model,
                change.revision,
                change.start_ns,
                max([now_ns, *[stage.end_ns for stage in stages]]),
                change.result or otherwise,
                stages,
                change.error,
                change.author,
                change.message,
                change.change_id,
            )
        )


def trace_id_of(scope: str, model: str, revision: int) -> int:
    """The trace that all gateways put their spans of this change into; never 0."""
    text = f"{scope}\0{model}\0{revision}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big") or 1
