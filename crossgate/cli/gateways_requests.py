"""What `crossgate explain` says of requests that were slow or failed, as texts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crossgate.cli import gateways_figures as figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protos import admin_pb2 as pb

_WHERE = {
    "admission": "read, checked and routed",
    "queue": "waiting for its batch to be closed",
    "arena": "its bytes on the way to the worker",
    "wait": "in the worker, until an instance was free",
    "run": "in the model",
    "reply": "from the worker to the caller's connection",
}


def request_lines(request: pb.RecentRequest) -> Iterator[str]:
    """Say what became of one request, and where its time went."""
    yield f"request {request.request_id or '(without an id)'}: {_summary(request)}"
    if request.message:
        yield f"  {request.message}"
    if request.version:
        by = f", chosen by {request.route}" if request.route else ""
        yield f"  version {request.version}{by}, revision {request.revision}"
    longest = max((phase.seconds for phase in request.phases), default=0.0)
    for phase in request.phases:
        mark = "  <- longest" if phase.seconds == longest and len(request.phases) > 1 else ""
        where = _WHERE.get(phase.name, "")
        yield f"  {phase.name:<10}{figures.seconds(phase.seconds):>10}  {where}{mark}"
    if request.HasField("batch"):
        batch = request.batch
        yield (
            f"  batch of {batch.rows} rows, {batch.requests} requests, closed because: {batch.close_reason}; "
            f"on {batch.worker} ({batch.device})"
        )
        if batch.mates:
            more = batch.requests - 1 - len(batch.mates)
            yield f"  with {', '.join(batch.mates)}{f' and {more} more' if more > 0 else ''}"
    for lost in request.tries:
        yield f"  lost before that on {lost.worker}, after {figures.seconds(lost.seconds)}: {lost.reason}"
    if request.trace_id:
        made = "" if request.traced else ", which was not sampled"
        yield f"  trace {request.trace_id}{made}"


def recent_lines(requests: Sequence[pb.RecentRequest]) -> Iterator[str]:
    """One line for each, the newest first."""
    for request in requests:
        yield f"{request.request_id or request.trace_id or '-'}: {_summary(request)}"


def _summary(request: pb.RecentRequest) -> str:
    at = datetime.fromtimestamp(request.arrived_unix_seconds, UTC).strftime("%H:%M:%S")
    became = "slow" if request.why == "slow" else request.outcome
    return f"{became} after {figures.seconds(request.total_seconds)}, model {request.model}, at {at} UTC"
