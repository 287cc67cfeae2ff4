"""Where a request would go now: the answer of the routing table, with the state of what it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.models import cut, waits
from gateway.admission.admission import Draining
from gateway.errors import GatewayError
from gateway.frontend.status import status_code
from gateway.routing.explanation import explain
from gateway.routing.table import ModelAsleep
from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.view import View
    from gateway.routing.explanation import Way
    from gateway.servable import Servable

# The names of the statuses that `status_code` gives.
_NAMES = {
    1: "CANCELLED", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 8: "RESOURCE_EXHAUSTED",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
}  # fmt: skip


def explanation_of(view: View, model: str, version: str, metadata: Mapping[str, str]) -> pb.ExplainResponse:
    """Return what a request with these names and metadata would meet. Errors are in the words in which the
    data plane answers them.
    """
    message = pb.ExplainResponse(model=model)
    served = view.served.get(model)
    if served is not None:
        message.applied = served.routing_revision
        message.waits.extend(cut(reason) for reason in waits(served))
        message.problem = cut(served.problem)
    try:
        route = view.table().find(model)
    except GatewayError as error:
        message.by = "nothing"
        message.failure.CopyFrom(_failure(error))
        return message
    explained = explain(route, version, metadata)
    message.revision = route.revision
    message.by = explained.by
    message.sticky = route.sticky or ""
    if explained.sticky_value is not None:
        message.sticky_value = explained.sticky_value
    if explained.rule is not None:
        message.rule = explained.rule + 1
        message.conditions.update(route.rules[explained.rule][0])
    draining = Draining() if view.draining() else None
    for way in explained.ways:
        message.ways.append(_way(way, draining))
    if all(way.HasField("failure") for way in message.ways):
        message.failure.CopyFrom(message.ways[0].failure)
    return message


def _way(way: Way, draining: Draining | None) -> pb.Way:
    message = pb.Way(version=way.version, share=way.share)
    servable = way.servable
    message.asleep = isinstance(way.error, ModelAsleep)
    error = draining if message.asleep or way.error is None else way.error
    if servable is not None:
        message.servable.CopyFrom(_servable(servable))
        if error is None and servable.queues.room <= 0:
            error = servable.queues.full()
    if error is not None:
        message.failure.CopyFrom(_failure(error))
    return message


def _servable(servable: Servable) -> pb.ServableStatus:
    policy, queues = servable.policy, servable.queues
    message = pb.ServableStatus(
        batchable=servable.batchable,
        why_not_batchable=cut(servable.reason),
        max_batch_size=policy.max_rows,
        max_queue_delay_us=policy.max_delay_ns // 1000,
        queue_depth=queues.size,
        max_queue_size=policy.max_queue_size,
        in_flight=max(servable.unsettled - queues.size, 0),
    )
    for hosting in servable.hostings:
        message.hostings.add(
            slot=hosting.slot.name,
            device=hosting.slot.device,
            count=hosting.count,
            batches_in_flight=hosting.in_flight,
            slot_batches_in_flight=len(hosting.slot.in_flight),
        )
    return message


def _failure(error: GatewayError) -> pb.Failure:
    return pb.Failure(code=_NAMES[status_code(error)], message=str(error))
