"""What is told of requests that were slow or failed of late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from gateway.telemetry.recent import RecentRequest


def message_of(request: RecentRequest) -> pb.RecentRequest:
    message = pb.RecentRequest(
        request_id=request.request_id,
        trace_id=request.trace_id,
        traced=request.traced,
        why=request.why.value,
        outcome=request.outcome.value,
        message=request.message,
        model=request.model,
        version=request.version,
        revision=request.revision,
        route=request.route,
        arrived_unix_seconds=request.arrived_unix_ns / 1e9,
        total_seconds=request.total_ns / 1e9,
        phases=[
            pb.RequestPhase(name=phase.name, seconds=(phase.end_ns - phase.start_ns) / 1e9)
            for phase in request.phases
        ],
        tries=[
            pb.LostTry(
                worker=each.worker, reason=each.reason, seconds=(each.lost_ns - each.dispatched_ns) / 1e9
            )
            for each in request.tries
        ],
    )
    execution = request.execution
    if execution is not None:
        message.batch.rows = execution.rows
        message.batch.requests = execution.requests
        message.batch.close_reason = execution.close_reason
        message.batch.device = execution.device
        message.batch.worker = execution.worker
        message.batch.mates.extend(request.mates)
    return message
