"""What the data plane tells tracing about sampled requests. All times are monotonic nanoseconds."""

from __future__ import annotations

import msgspec

from gateway.telemetry.outcome import Outcome


class SampledContext(msgspec.Struct, frozen=True, gc=False):
    """The trace of one sampled request. Ids are decided on arrival, so that logs can name them before a
    span exists."""

    trace_id: int
    span_id: int
    parent_span_id: int = 0  # the caller's span, 0 for a trace that begins here
    trace_state: str = ""

    @property
    def trace_id_hex(self) -> str:
        return f"{self.trace_id:032x}"

    @property
    def span_id_hex(self) -> str:
        return f"{self.span_id:016x}"


class MemberTrace(msgspec.Struct, frozen=True):
    """A sampled request of a batch."""

    context: SampledContext
    arrived_ns: int
    enqueued_ns: int
    settled_ns: int
    outcome: Outcome = Outcome.OK
    request_id: str = ""


class BatchTrace(msgspec.Struct, frozen=True):
    """A finished batch that has sampled members. `batch_size` is in rows, of all members, sampled or not.

    `run_start_ns` and `run_end_ns` are the worker's and 0 where the batch was lost before it ran.
    """

    model: str
    version: str
    revision: int
    device: str
    worker: str
    batch_size: int
    close_reason: str
    dispatched_ns: int
    run_start_ns: int
    run_end_ns: int
    settled_ns: int
    members: tuple[MemberTrace, ...]


class FailureTrace(msgspec.Struct, frozen=True):
    """A sampled request that was answered without having been in a batch; `enqueued_ns` is 0 if it was
    never queued."""

    context: SampledContext
    model: str
    outcome: Outcome
    arrived_ns: int
    settled_ns: int
    enqueued_ns: int = 0
    version: str = ""
    revision: int = 0
    request_id: str = ""
