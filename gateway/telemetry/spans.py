"""Spans made after the fact from what the data plane recorded. The only file that imports OpenTelemetry.

Finished `ReadableSpan`s are made directly instead of through a `Tracer`: all is known when they are made,
so nothing is ever mutated or looked up in a context, which costs the event loop 5 us a span instead of 35,
and links are not subject to `SpanLimits`, whose default of 128 would silently drop those of a large batch.
Encoding and sending happen in the batch processor's thread.

Attribute names: OpenTelemetry semantic conventions for RPC (v1.4x) and, where those have none, `crossgate.*`.
"""

from __future__ import annotations

import os
import random
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from gateway.telemetry.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

    from gateway.telemetry.trace import BatchTrace, FailureTrace, MemberTrace, SampledContext

_METHOD: Final = "inference.GRPCInferenceService/ModelInfer"
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)
_MAX_QUEUED_SPANS: Final = 8192
_ABORT_S = 0.5

_STATUS_CODES: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.OK: "OK",
        Outcome.INVALID: "INVALID_ARGUMENT",
        Outcome.NOT_FOUND: "NOT_FOUND",
        Outcome.UNAVAILABLE: "UNAVAILABLE",
        Outcome.EXHAUSTED: "RESOURCE_EXHAUSTED",
        Outcome.EXPIRED: "DEADLINE_EXCEEDED",
        Outcome.CANCELLED: "CANCELLED",
        Outcome.FAILED: "INTERNAL",
        Outcome.BUG: "INTERNAL",
        Outcome.NOT_OFFERED: "UNIMPLEMENTED",
        Outcome.UNAUTHENTICATED: "UNAUTHENTICATED",
        Outcome.DENIED: "PERMISSION_DENIED",
    }
)
# The statuses that make a server's span an error, by the gRPC semantic conventions; the others are the
# caller's fault.
_SERVER_ERRORS: Final = frozenset({"DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"})


class SpanPipeline:
    """Makes spans and hands them to `processor`, which must neither block nor raise.

    `epoch_offset_ns` added to a monotonic time gives nanoseconds since the epoch.
    """

    def __init__(
        self, processor: SpanProcessor, exporter: SpanExporter, resource: Resource, epoch_offset_ns: int
    ) -> None:
        self._processor = processor
        self._exporter = exporter
        self._resource = resource
        self._scope = InstrumentationScope("crossgate")
        self._offset_ns = epoch_offset_ns
        self._random = random.Random()

    @classmethod
    def to_collector(cls, endpoint: str, epoch_offset_ns: int, service_version: str = "") -> SpanPipeline:
        """A pipeline to an OTLP gRPC collector. The connection is made when there is something to send."""
        exporter = OTLPSpanExporter(endpoint=endpoint)
        processor = BatchSpanProcessor(exporter, max_queue_size=_max_queue_size())
        return cls(processor, exporter, _resource(service_version), epoch_offset_ns)

    def record_batch(self, batch: BatchTrace) -> None:
        """One span for the batch, and per sampled member a SERVER span with the children `queue` and `run`.

        The batch and its members link to each other. The batch belongs to its members' trace when
        that is one trace, below the first member; else it begins a trace of its own.
        """
        members = batch.members
        if not members:
            return
        contexts = [_context(member.context) for member in members]
        first = contexts[0]
        shared = all(context.trace_id == first.trace_id for context in contexts)
        batch_context = SpanContext(
            first.trace_id if shared else self._random.getrandbits(128) or 1, self._new_id(), False, _SAMPLED
        )
        attributes = _batch_attributes(batch)
        self._emit(
            "batch",
            batch_context,
            first if shared else None,
            batch.dispatched_ns,
            batch.settled_ns,
            attributes=attributes,
            links=tuple([Link(context) for context in contexts]),
        )
        link = (Link(batch_context),)
        for member, context in zip(members, contexts, strict=True):
            self._emit_request(member, context, attributes, link)
            self._emit_child("queue", context, member.enqueued_ns, batch.dispatched_ns)
            if batch.run_start_ns:
                self._emit_child("run", context, batch.run_start_ns, batch.run_end_ns)

    def record_failure(self, failure: FailureTrace) -> None:
        """A SERVER span, and a child `queue` if the request was queued."""
        context = _context(failure.context)
        attributes: dict[str, AttributeValue] = {"crossgate.model": failure.model}
        if failure.version:
            attributes["crossgate.version"] = failure.version
            attributes["crossgate.revision"] = failure.revision
        self._emit_request(failure, context, attributes, ())
        if failure.enqueued_ns:
            self._emit_child("queue", context, failure.enqueued_ns, failure.settled_ns)

    def close(self, timeout_s: float) -> None:
        """Export what is queued within `timeout_s`; then cancel the export that hangs and drop the rest."""
        stopping = threading.Thread(target=self._processor.shutdown, name="tracing-shutdown", daemon=True)
        stopping.start()
        stopping.join(timeout_s)
        if stopping.is_alive():
            self._exporter.shutdown()
            stopping.join(_ABORT_S)

    def _emit_request(
        self,
        request: MemberTrace | FailureTrace,
        context: SpanContext,
        attributes: Mapping[str, AttributeValue],
        links: tuple[Link, ...],
    ) -> None:
        status_code = _STATUS_CODES[request.outcome]
        own: dict[str, AttributeValue] = {
            "rpc.system.name": "grpc",
            "rpc.method": _METHOD,
            "rpc.response.status_code": status_code,
            "crossgate.outcome": request.outcome.value,
            **attributes,
        }
        if request.request_id:
            own["crossgate.request_id"] = request.request_id
        is_error = status_code in _SERVER_ERRORS
        if is_error:
            own["error.type"] = status_code
        self._emit(
            _METHOD,
            context,
            _parent(request.context),
            request.arrived_ns,
            request.settled_ns,
            attributes=own,
            links=links,
            kind=SpanKind.SERVER,
            status=_ERROR if is_error else _UNSET,
        )

    def _emit_child(self, name: str, parent: SpanContext, start_ns: int, end_ns: int) -> None:
        context = SpanContext(parent.trace_id, self._new_id(), False, _SAMPLED, parent.trace_state)
        self._emit(name, context, parent, start_ns, end_ns)

    def _emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start_ns: int,
        end_ns: int,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: tuple[Link, ...] = (),
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _UNSET,
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                links=links,
                kind=kind,
                status=status,
                start_time=start_ns + self._offset_ns,
                end_time=end_ns + self._offset_ns,
                instrumentation_scope=self._scope,
            )
        )

    def _new_id(self) -> int:
        return self._random.getrandbits(64) or 1


def _context(context: SampledContext) -> SpanContext:
    return SpanContext(context.trace_id, context.span_id, False, _SAMPLED, _trace_state(context))


def _parent(context: SampledContext) -> SpanContext | None:
    if not context.parent_span_id:
        return None
    return SpanContext(context.trace_id, context.parent_span_id, True, _SAMPLED, _trace_state(context))


def _trace_state(context: SampledContext) -> TraceState | None:
    return TraceState.from_header([context.trace_state]) if context.trace_state else None


def _batch_attributes(batch: BatchTrace) -> dict[str, AttributeValue]:
    return {
        "crossgate.model": batch.model,
        "crossgate.version": batch.version,
        "crossgate.revision": batch.revision,
        "crossgate.batch.size": batch.batch_size,
        "crossgate.batch.close_reason": batch.close_reason,
        "crossgate.device": batch.device,
        "crossgate.worker": batch.worker,
    }


def _resource(service_version: str) -> Resource:
    """The standard variables' resource; the service is called crossgate unless they name it."""
    resource = Resource.create({SERVICE_VERSION: service_version} if service_version else {})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "crossgate"}))
    return resource


def _max_queue_size() -> int | None:
    """None leaves the choice to the SDK: the variable is set."""
    return None if os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) else _MAX_QUEUED_SPANS
