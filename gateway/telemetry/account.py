"""What is counted for one model version: plain integers, added up once per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry.histogram import BATCH_SIZE_BOUNDS, LATENCY_BOUNDS_NS, Histogram
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.statistics import BatchStatistics, Duration, InferenceStatistics, VersionStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence


class Executions:
    """Executions of one batch size on one device."""

    __slots__ = ("count", "infer_ns", "input_ns", "output_ns")

    def __init__(self) -> None:
        self.count = self.input_ns = self.infer_ns = self.output_ns = 0


class DeviceAccount:
    """The part that differs by device: executions, not requests."""

    __slots__ = ("batches", "executions", "run_seconds")

    def __init__(self) -> None:
        self.run_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.batches: dict[str, int] = {}  # {close_reason: batches}
        self.executions: dict[int, Executions] = {}  # {rows: executions}

    @property
    def batch_size(self) -> Histogram:
        """Made from the exact sizes when asked for, which spares the work per batch."""
        histogram = Histogram(BATCH_SIZE_BOUNDS)
        for rows, executions in list(self.executions.items()):
            histogram.observe(rows, executions.count)
        return histogram


class VersionAccount:
    """Changed only from the event loop's thread; a reader elsewhere may see one batch half added.

    Durations are nanoseconds. `request_seconds` holds every request that was queued, whatever its
    outcome, so that a deadline that is often missed does not make the tail look better; requests
    rejected before they were queued are left out, because their microseconds would. `queue_seconds`
    holds successful requests.
    """

    __slots__ = (
        "_compute_infer_ns",
        "_compute_input_ns",
        "_compute_output_ns",
        "_fail_ns",
        "_success_ns",
        "devices",
        "failures",
        "inference_count",
        "last_inference_ms",
        "model",
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
        self.request_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.queue_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.devices: dict[str, DeviceAccount] = {}  # {device: account}
        self.failures: dict[Outcome, int] = {}  # {outcome other than OK: requests}
        self.succeeded = 0
        self.rejected = 0
        self.reruns = 0
        self.inference_count = 0
        self.last_inference_ms = 0
        self._success_ns = 0
        self._fail_ns = 0
        self._compute_input_ns = 0
        self._compute_infer_ns = 0
        self._compute_output_ns = 0

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
        rows = sum(rows_per_request) if 0 not in rows_per_request else sum([n or 1 for n in rows_per_request])
        self.succeeded += requests
        self.inference_count += rows
        if now_ms > self.last_inference_ms:
            self.last_inference_ms = now_ms
        self._success_ns += self.request_seconds.observe_many(total_ns)
        self.queue_seconds.observe_many(queue_ns)
        self._compute_input_ns += requests * input_ns
        self._compute_infer_ns += requests * run_ns
        self._compute_output_ns += requests * output_ns

        on_device = self.devices.get(device)
        if on_device is None:
            on_device = self.devices[device] = DeviceAccount()
        on_device.run_seconds.observe(run_ns)
        batches = on_device.batches
        batches[close_reason] = batches.get(close_reason, 0) + 1
        if batch_rows is not None:
            rows = batch_rows
        executions = on_device.executions.get(rows)
        if executions is None:
            executions = on_device.executions[rows] = Executions()
        executions.count += 1
        executions.input_ns += input_ns
        executions.infer_ns += run_ns
        executions.output_ns += output_ns

    def record_failure(self, outcome: Outcome, total_ns: int, *, rejected: bool = False) -> None:
        """Add one request that did not succeed; `rejected` when it was answered without being queued."""
        self.failures[outcome] = self.failures.get(outcome, 0) + 1
        self._fail_ns += total_ns
        if rejected:
            self.rejected += 1
        else:
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
        succeeded = self.succeeded
        batch_stats = self._batch_statistics()
        return VersionStatistics(
            model=self.model,
            version=self.version,
            last_inference_ms=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=sum(batch.compute_infer.count for batch in batch_stats),
            inference_stats=InferenceStatistics(
                success=Duration(succeeded, self._success_ns),
                fail=Duration(sum(self.failures.values()), self._fail_ns),
                queue=Duration(succeeded, self.queue_seconds.sum),
                compute_input=Duration(succeeded, self._compute_input_ns),
                compute_infer=Duration(succeeded, self._compute_infer_ns),
                compute_output=Duration(succeeded, self._compute_output_ns),
            ),
            batch_stats=batch_stats,
        )

    def _batch_statistics(self) -> tuple[BatchStatistics, ...]:
        by_rows: dict[int, list[Executions]] = {}  # {rows: executions, one per device}
        for device in self.devices.values():
            for rows, executions in device.executions.items():
                by_rows.setdefault(rows, []).append(executions)
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
