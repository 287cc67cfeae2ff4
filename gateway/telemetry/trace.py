"""What the data plane tells of requests that have ended: to spans, and to those who ask why one was slow.

All times are monotonic nanoseconds, 0 where there is none.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from gateway.telemetry.outcome import Outcome
from gateway.telemetry.sampling import SampledBy

# A caller chooses these, and may choose them large; what is kept of a request is bounded.
MAX_ID_CHARS: Final = 256
MAX_TRACE_STATE_CHARS: Final = 512  # what W3C Trace Context asks to propagate at least


class SampledContext(msgspec.Struct, frozen=True, gc=False):
    """The trace of one sampled request. Ids are decided on arrival, so that logs can name them before a
    span exists; those of a request that is traced for having failed or been slow, at its end."""

    trace_id: int
    span_id: int
    parent_span_id: int = 0  # the caller's span, 0 for a trace that begins here
    trace_state: str = ""
    sampled_by: SampledBy = SampledBy.RATIO

    @property
    def trace_id_hex(self) -> str:
        return f"{self.trace_id:032x}"

    @property
    def span_id_hex(self) -> str:
        return f"{self.span_id:016x}"


class LostTry(msgspec.Struct, frozen=True, gc=False):
    """A batch that a request was in before the one that answered it, and why that came to nothing."""

    worker: str
    dispatched_ns: int
    lost_ns: int
    reason: str


class Execution(msgspec.Struct, frozen=True, gc=False):
    """A batch on its way through a worker. `rows` and `requests` count all members.

    `received_ns` is when the worker had the batch: its bytes were gathered and sent by then. The worker's
    times are 0 where it did not say.
    """

    device: str
    worker: str
    rows: int
    requests: int
    close_reason: str
    dispatched_ns: int
    received_ns: int = 0
    started_ns: int = 0
    run_start_ns: int = 0
    run_end_ns: int = 0


class Phase(NamedTuple):
    """A part of the time that a request took."""

    name: str
    start_ns: int
    end_ns: int


def phases(enqueued_ns: int, execution: Execution | None, settled_ns: int) -> list[Phase]:
    """Where the time of a request went, in order and without overlaps; none for one that was not queued.

    `queue` until its batch was closed, `arena` until its bytes and those of its batch mates had reached the
    worker, `wait` until an instance was free, `run` in the model, `reply` until the answer was with the
    front end. Between `wait` and `run` the worker opens the inputs. What is not known is part of the
    phase before: a batch that was never answered waits until its end.
    """
    if not enqueued_ns:
        return []
    if execution is None:
        return [Phase("queue", enqueued_ns, settled_ns)]
    marks = [
        ("queue", enqueued_ns, execution.dispatched_ns),
        ("arena", execution.dispatched_ns, execution.received_ns),
        ("wait", execution.received_ns or execution.dispatched_ns, execution.started_ns or settled_ns),
        ("run", execution.run_start_ns or execution.started_ns, execution.run_end_ns or settled_ns),
        ("reply", execution.run_end_ns, settled_ns),
    ]
    found, at_ns = [], enqueued_ns
    for name, start_ns, end_ns in marks:
        if start_ns and end_ns:
            # a remote worker's times are estimates: nothing begins before what comes before it has ended
            start_ns = min(max(start_ns, at_ns), settled_ns)
            at_ns = min(max(end_ns, start_ns), settled_ns)
            found.append(Phase(name, start_ns, at_ns))
    return found


def phase_count(enqueued_ns: int, execution: Execution | None) -> int:
    """How many `phases` there are, without making them."""
    if not enqueued_ns:
        return 0
    if execution is None:
        return 1
    has_run = execution.run_start_ns or execution.started_ns
    return 2 + bool(execution.received_ns) + bool(has_run) + bool(execution.run_end_ns)


class MemberTrace(msgspec.Struct, frozen=True):
    """A sampled request of a batch."""

    context: SampledContext
    arrived_ns: int
    enqueued_ns: int
    settled_ns: int
    outcome: Outcome = Outcome.OK
    request_id: str = ""
    tries: tuple[LostTry, ...] = ()


class BatchTrace(msgspec.Struct, frozen=True):
    """A finished batch that has sampled members."""

    model: str
    version: str
    revision: int
    execution: Execution
    settled_ns: int
    members: tuple[MemberTrace, ...]


class FailureTrace(msgspec.Struct, frozen=True):
    """A sampled request that got no outputs. `enqueued_ns` is 0 if it was never queued, `execution` None if
    it was in no batch when it ended."""

    context: SampledContext
    model: str
    outcome: Outcome
    arrived_ns: int
    settled_ns: int
    enqueued_ns: int = 0
    version: str = ""
    revision: int = 0
    request_id: str = ""
    message: str = ""
    execution: Execution | None = None
    tries: tuple[LostTry, ...] = ()


class SpanCounts(msgspec.Struct, frozen=True):
    """Spans since the start. Dropped are those for which there was no room, or no time at the end; failed
    those that the collector did not take."""

    exported: int = 0
    dropped: int = 0
    failed: int = 0
