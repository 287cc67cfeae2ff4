"""What is told of requests that have ended: their spans, and those of late that were slow or failed.

Guarantees: a request that is neither sampled, slow nor failed costs no object and no call. Nothing is kept of
a request but texts, cut to a bounded length, and times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from gateway.routing.explanation import explain
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.recent import MAX_MATE_CHARS, MAX_MATES, MAX_MESSAGE_CHARS, RecentRequest
from gateway.telemetry.sampling import SampledBy
from gateway.telemetry.trace import MAX_ID_CHARS, BatchTrace, Execution, FailureTrace, LostTry, MemberTrace
from gateway.telemetry.traceparent import parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.call import Call, CallId
    from gateway.clock import Clock
    from gateway.errors import GatewayError
    from gateway.routing.table import RouteTable
    from gateway.scheduling.item import QueueItem
    from gateway.scheduling.slot import Batch
    from gateway.servable import Servable
    from gateway.telemetry.recent import Ring
    from gateway.telemetry.trace import SampledContext
    from gateway.telemetry.tracing import Tracing
    from wire.frames import Done

_MAX_TRIES: Final = 8  # that are kept of one request; the last ones


class Chronicle:
    """`table` is where calls go now."""

    def __init__(self, clock: Clock, tracing: Tracing, table: Callable[[], RouteTable | None]) -> None:
        self._tracing = tracing
        self._table = table
        self._clock = clock
        self._epoch_offset_ns = time.time_ns() - clock.now_ns()
        self._tries: dict[CallId, tuple[LostTry, ...]] = {}  # of requests that are not settled

    def lost(self, batch: Batch, item: QueueItem, reason: str, now_ns: int) -> None:
        """A request that goes on was in this batch for nothing."""
        lost = LostTry(batch.hosting.slot.name, batch.dispatched_ns, now_ns, reason[:MAX_MESSAGE_CHARS])
        self._tries[item.id] = (*self._tries.get(item.id, ())[1 - _MAX_TRIES :], lost)

    def answered(
        self,
        batch: Batch,
        servable: Servable,
        settled: Sequence[QueueItem],
        total_ns: Sequence[int],
        done: Done,
    ) -> None:
        """Requests of a batch got their outputs; `total_ns` is how long each took until its answer came from
        the worker.
        """
        tracing = self._tracing
        slow_ns = tracing.sampler(servable.model).slow_ns
        if total_ns and max(total_ns) > slow_ns:
            execution, settled_ns = _execution(batch, done), self._clock.now_ns()
            for item, took_ns in zip(settled, total_ns, strict=True):
                if took_ns > slow_ns:
                    self._slow(batch, servable, item, execution, settled_ns)
        if tracing.enabled:
            traced = [item for item in settled if item.trace is not None]
            if traced:
                self._trace(batch, servable, traced, done)
                for item, took_ns in zip(settled, total_ns, strict=True):
                    if item.trace is not None:
                        self._exemplify(servable, item.trace, took_ns)
        if self._tries:
            self._forget(settled)

    def _exemplify(self, servable: Servable, context: SampledContext, took_ns: int) -> None:
        at_ms = (self._clock.now_ns() + self._epoch_offset_ns) // 1_000_000
        servable.account.exemplify(took_ns, context.trace_id, at_ms, context.span_id)

    def _trace(self, batch: Batch, servable: Servable, traced: Sequence[QueueItem], done: Done) -> None:
        settled_ns = self._clock.now_ns()  # the answers are with the front end by now
        self._tracing.record(
            BatchTrace(
                servable.model,
                servable.version,
                servable.revision,
                _execution(batch, done),
                settled_ns,
                tuple([self._member(item, settled_ns) for item in traced]),
            )
        )

    def _member(self, item: QueueItem, now_ns: int) -> MemberTrace:
        assert item.trace is not None, "it is sampled"
        tries = self._tries.get(item.id, ()) if self._tries else ()
        return MemberTrace(
            item.trace,
            item.arrived_ns,
            item.enqueued_ns,
            now_ns,
            request_id=item.call.request_id[:MAX_ID_CHARS],
            tries=tries,
        )

    def _slow(
        self, batch: Batch, servable: Servable, item: QueueItem, execution: Execution, now_ns: int
    ) -> None:
        tracing, call = self._tracing, item.call
        if item.trace is None and tracing.enabled:
            item.trace = tracing.sample_late(call.metadata, servable.model, SampledBy.SLOW, now_ns)
        ring = tracing.recent.slow
        if ring.admit(now_ns):
            self._keep(
                ring, call, SampledBy.SLOW, Outcome.OK, item.trace, now_ns, servable, item, batch, execution
            )

    def failed(
        self,
        item: QueueItem,
        servable: Servable,
        batch: Batch | None,
        error: GatewayError,
        outcome: Outcome,
        done: Done | None,
        now_ns: int,
    ) -> None:
        """A request that was queued got no outputs. `batch` is the one that it was in, if any."""
        tracing, call = self._tracing, item.call
        context = item.trace
        if context is None and tracing.enabled and tracing.sampler(servable.model).minds(outcome):
            context = tracing.sample_late(call.metadata, servable.model, SampledBy.ERROR, now_ns)
        execution = None if batch is None else _execution(batch, done)
        if context is not None:
            self._exemplify(servable, context, now_ns - item.arrived_ns)
            tracing.record(
                FailureTrace(
                    context,
                    servable.model,
                    outcome,
                    item.arrived_ns,
                    now_ns,
                    item.enqueued_ns,
                    servable.version,
                    servable.revision,
                    call.request_id[:MAX_ID_CHARS],
                    str(error)[:MAX_MESSAGE_CHARS],
                    execution,
                    self._tries.get(item.id, ()),
                )
            )
        ring = tracing.recent.failed
        if ring.admit(now_ns):
            self._keep(
                ring,
                call,
                SampledBy.ERROR,
                outcome,
                context,
                now_ns,
                servable,
                item,
                batch,
                execution,
                str(error),
            )
        self._tries.pop(item.id, None)

    def refused(
        self, call: Call, error: GatewayError, outcome: Outcome, version: str, revision: int, now_ns: int
    ) -> None:
        """A request was not queued. `version` is '' where it was not routed."""
        tracing, model = self._tracing, call.model
        context = None
        if tracing.enabled:
            context = tracing.sample(call.metadata, model)
            if context is None and tracing.sampler(model).minds(outcome):
                context = tracing.sample_late(call.metadata, model, SampledBy.ERROR, now_ns)
        message = str(error)
        if context is not None:
            tracing.record(
                FailureTrace(
                    context,
                    model[:MAX_ID_CHARS],
                    outcome,
                    call.arrived_ns,
                    now_ns,
                    version=version,
                    revision=revision,
                    request_id=call.request_id[:MAX_ID_CHARS],
                    message=message[:MAX_MESSAGE_CHARS],
                )
            )
        ring = tracing.recent.failed
        if ring.admit(now_ns):
            ring.add(
                RecentRequest(
                    SampledBy.ERROR,
                    outcome,
                    model[:MAX_ID_CHARS],
                    call.arrived_ns,
                    now_ns,
                    call.arrived_ns + self._epoch_offset_ns,
                    call.request_id[:MAX_ID_CHARS],
                    _trace_id(call, context),
                    context is not None,
                    version,
                    revision,
                    self._route(call, version),
                    message[:MAX_MESSAGE_CHARS],
                )
            )

    def _keep(
        self,
        ring: Ring,
        call: Call,
        why: SampledBy,
        outcome: Outcome,
        context: SampledContext | None,
        now_ns: int,
        servable: Servable,
        item: QueueItem,
        batch: Batch | None,
        execution: Execution | None,
        message: str = "",
    ) -> None:
        ring.add(
            RecentRequest(
                why,
                outcome,
                servable.model,
                item.arrived_ns,
                now_ns,
                item.arrived_ns + self._epoch_offset_ns,
                call.request_id[:MAX_ID_CHARS],
                _trace_id(call, context),
                context is not None,
                servable.version,
                servable.revision,
                self._route(call, servable.version),
                message[:MAX_MESSAGE_CHARS],
                item.enqueued_ns,
                execution,
                () if batch is None else _mates(batch, item),
                self._tries.get(item.id, ()),
            )
        )

    def _route(self, call: Call, version: str) -> str:
        """Return what chose the version, by the table of now: a change within the request's life may have
        chosen otherwise.
        """
        table = self._table()
        route = table.models.get(call.model) if table is not None else None
        if route is None:
            return ""
        explained = explain(route, call.version, call.metadata)
        match explained.by:
            case "label":
                return f"label {call.version[:MAX_ID_CHARS]}"
            case "rule":
                assert explained.rule is not None, "a rule has its position"
                return f"rule {explained.rule + 1}"
            case "sticky":
                return f"sticky {route.sticky}"
            case "weights":
                share = sum([way.share for way in explained.ways if way.version == version])
                return f"split, {share:.4g} of the requests"
            case "version":
                return "the version asked for"
            case "only":
                return "the only version"
            case _:
                return ""

    def _forget(self, settled: Sequence[QueueItem]) -> None:
        for item in settled:
            self._tries.pop(item.id, None)


def _execution(batch: Batch, done: Done | None) -> Execution:
    slot = batch.hosting.slot
    run_start_ns = run_end_ns = received_ns = started_ns = 0
    if done is not None:
        received_ns, started_ns, run_start_ns = done.received_ns, done.started_ns, done.ran_ns
        run_end_ns = done.ran_ns + done.run_ns
    return Execution(
        slot.device,
        slot.name,
        batch.rows,
        len(batch.items),
        batch.close_reason,
        batch.dispatched_ns,
        received_ns,
        started_ns,
        run_start_ns,
        run_end_ns,
    )


def _mates(batch: Batch, item: QueueItem) -> tuple[str, ...]:
    """Return ids of some of the requests that ran with this one, of those that have one."""
    found: list[str] = []
    for mate in batch.items:
        if mate is not item and (id_ := mate.call.request_id):
            found.append(id_[:MAX_MATE_CHARS])
            if len(found) == MAX_MATES:
                break
    return tuple(found)


def _trace_id(call: Call, context: SampledContext | None) -> str:
    if context is not None:
        return context.trace_id_hex
    header = call.metadata.get("traceparent")
    parent = parse_traceparent(header) if header is not None else None
    return "" if parent is None else f"{parent.trace_id:032x}"
