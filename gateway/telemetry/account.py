"""What is counted for one model version: plain integers, added up once per batch."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from gateway.telemetry.histogram import BATCH_SIZE_BOUNDS, LATENCY_BOUNDS_NS, Histogram
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.statistics import BatchStatistics, Duration, InferenceStatistics, VersionStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Executions:
    """Executions of one batch size on one device that were closed for one reason."""

    __slots__ = ("close_reason", "count", "infer_ns", "input_ns", "output_ns", "rows", "run_seconds")

    def __init__(self, rows: int, close_reason: str, run_seconds: Histogram) -> None:
        self.rows = rows
        self.close_reason = close_reason
        self.run_seconds = run_seconds  # of all executions on the device
        self.count = self.input_ns = self.infer_ns = self.output_ns = 0


class DeviceAccount:
    """The part that differs by device: executions, not requests."""

    __slots__ = ("executions", "run_seconds")

    def __init__(self) -> None:
        self.run_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.executions: list[Executions] = []

    @property
    def batches(self) -> dict[str, int]:
        """{close_reason: batches}"""
        found: dict[str, int] = {}
        for executions in self.executions:
            found[executions.close_reason] = found.get(executions.close_reason, 0) + executions.count
        return found

    @property
    def batch_size(self) -> Histogram:
        """Made from the exact sizes when asked for, which spares the work per batch."""
        histogram = Histogram(BATCH_SIZE_BOUNDS)
        for executions in self.executions:
            histogram.observe_times(executions.rows, executions.count)
        return histogram


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """A request of a histogram's bucket whose trace can be looked up. `at_ms` is since the epoch; the ids are
    those of its trace and of its own span, 0 where that is not known.
    """

    latency_ns: int
    trace_id: int
    span_id: int
    at_ms: int


class VersionAccount:
    """Changed only from the event loop's thread; a reader elsewhere may see one batch half added.

    Durations are nanoseconds. `request_seconds` holds every request that was queued, whatever its
    outcome, so that a deadline that is often missed does not make the tail look better; requests
    rejected before they were queued are left out, because their microseconds would. `queue_seconds`
    holds successful requests. `opened_ns` is when counting began, since the epoch.
    """

    __slots__ = (
        "_executions",
        "_exemplars",
        "_fail_ns",
        "_more_infer_ns",
        "_more_input_ns",
        "_more_output_ns",
        "_queued_fail_ns",
        "devices",
        "failures",
        "inference_count",
        "last_inference_ms",
        "model",
        "opened_ns",
        "queue_seconds",
        "rejected",
        "request_seconds",
        "reruns",
        "succeeded",
        "version",
    )

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.opened_ns = time.time_ns()
        self.request_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.queue_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.devices: dict[str, DeviceAccount] = {}  # {device: account}
        self.failures: dict[Outcome, int] = {}  # {outcome other than OK: requests}
        self.succeeded = 0
        self.rejected = 0
        self.reruns = 0
        self.inference_count = 0
        self.last_inference_ms = 0
        self._executions: dict[tuple[str, int, str], Executions] = {}  # by device, rows and close reason
        self._exemplars: dict[int, Exemplar] = {}  # {bucket of request_seconds: the latest}
        self._fail_ns = 0
        self._queued_fail_ns = 0  # of those that are in request_seconds
        # A batch's compute time counts once for each of its requests: that of the first is in its
        # executions, that of the others here.
        self._more_input_ns = 0
        self._more_infer_ns = 0
        self._more_output_ns = 0

    def record_batch(
        self,
        rows_per_request: Sequence[int],
        queue_ns: Sequence[int],
        total_ns: Sequence[int],
        input_ns: int,
        run_ns: int,
        output_ns: int,
        close_reason: str,
        device: str,
        now_ms: int,
        batch_rows: int | None = None,
    ) -> None:
        """Add one execution and the requests that succeeded in it; the three sequences are parallel.

        A model without a batch dimension has one row per request, and so has a request of no rows,
        as in Triton. `batch_rows` is what ran, when that is more than the rows of the successes (a
        member was cancelled during the run). An execution that failed as a whole is not recorded
        here, again as in Triton: its requests are failures.
        """
        requests = len(rows_per_request)
        if requests == 1:  # where nothing is batched, all this is paid for each request
            rows = rows_per_request[0] or 1
            self.request_seconds.observe(total_ns[0])
            self.queue_seconds.observe(queue_ns[0])
        else:
            rows = sum(rows_per_request)
            if 0 in rows_per_request:
                rows += rows_per_request.count(0)
            self.request_seconds.observe_many(total_ns)
            self.queue_seconds.observe_many(queue_ns)
            self._more_input_ns += (requests - 1) * input_ns
            self._more_infer_ns += (requests - 1) * run_ns
            self._more_output_ns += (requests - 1) * output_ns
        self.succeeded += requests
        self.inference_count += rows
        if now_ms > self.last_inference_ms:
            self.last_inference_ms = now_ms
        if batch_rows is not None:
            rows = batch_rows
        executions = self._executions.get((device, rows, close_reason))
        if executions is None:
            executions = self._open(device, rows, close_reason)
        executions.count += 1
        executions.input_ns += input_ns
        executions.infer_ns += run_ns
        executions.output_ns += output_ns
        executions.run_seconds.observe(run_ns)

    def _open(self, device: str, rows: int, close_reason: str) -> Executions:
        on_device = self.devices.get(device)
        if on_device is None:
            on_device = self.devices[device] = DeviceAccount()
        executions = Executions(rows, close_reason, on_device.run_seconds)
        on_device.executions.append(executions)
        self._executions[device, rows, close_reason] = executions
        return executions

    def exemplify(self, latency_ns: int, trace_id: int, at_ms: int, span_id: int = 0) -> None:
        """Name a request that is traced, and counted in `request_seconds`, as an example of those that took
        about as long: the latest for each bucket is kept. Times as in `Exemplar`.
        """
        bucket = bisect_left(LATENCY_BOUNDS_NS, latency_ns)
        self._exemplars[bucket] = Exemplar(latency_ns, trace_id, span_id, at_ms)

    @property
    def exemplars(self) -> Mapping[int, Exemplar]:
        """{bucket of `request_seconds`: the latest example}"""
        return self._exemplars

    def record_failure(self, outcome: Outcome, total_ns: int, *, rejected: bool = False) -> None:
        """Add one request that did not succeed; `rejected` when it was answered without being queued."""
        self.failures[outcome] = self.failures.get(outcome, 0) + 1
        self._fail_ns += total_ns
        if rejected:
            self.rejected += 1
        else:
            self._queued_fail_ns += total_ns
            self.request_seconds.observe(total_ns)

    def record_reruns(self, requests: int) -> None:
        """Add requests that are to run again because their batch was lost."""
        self.reruns += requests

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """{outcome: requests} with every outcome present."""
        return {o: self.succeeded if o is Outcome.OK else self.failures.get(o, 0) for o in Outcome}

    def statistics(self) -> VersionStatistics:
        """A copy in Triton's terms, over all devices."""
        batch_stats = self._batch_statistics()
        return VersionStatistics(
            model=self.model,
            version=self.version,
            last_inference_ms=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=sum(batch.compute_infer.count for batch in batch_stats),
            inference_stats=self.inference_statistics(),
            batch_stats=batch_stats,
        )

    def inference_statistics(self) -> InferenceStatistics:
        """The part of `statistics` that is per request."""
        succeeded = self.succeeded
        executions = self._executions.values()
        return InferenceStatistics(
            success=Duration(succeeded, self.request_seconds.sum - self._queued_fail_ns),
            fail=Duration(sum(self.failures.values()), self._fail_ns),
            queue=Duration(succeeded, self.queue_seconds.sum),
            compute_input=Duration(succeeded, self._more_input_ns + sum([e.input_ns for e in executions])),
            compute_infer=Duration(succeeded, self._more_infer_ns + sum([e.infer_ns for e in executions])),
            compute_output=Duration(succeeded, self._more_output_ns + sum([e.output_ns for e in executions])),
        )

    def _batch_statistics(self) -> tuple[BatchStatistics, ...]:
        by_rows: dict[int, list[Executions]] = {}  # {rows: executions, one per device and close reason}
        for executions in self._executions.values():
            by_rows.setdefault(executions.rows, []).append(executions)
        found = []
        for rows, parts in sorted(by_rows.items()):
            count = sum(part.count for part in parts)
            found.append(
                BatchStatistics(
                    batch_size=rows,
                    compute_input=Duration(count, sum(part.input_ns for part in parts)),
                    compute_infer=Duration(count, sum(part.infer_ns for part in parts)),
                    compute_output=Duration(count, sum(part.output_ns for part in parts)),
                )
            )
        return tuple(found)
