"""Spans on their way to the collector: a bounded queue, and the thread that empties it.

Guarantees: `put` neither blocks nor raises, whatever the collector does; what waits is bounded, and the
oldest makes room; every span is counted once, as exported, failed or dropped; `close` is bounded in time.

Records wait, not spans: what is dropped costs next to nothing, and a dropped record is a whole request or
batch, so that no trace loses a part. Making and encoding spans holds the interpreter's lock, which the event
loop needs for every request: the thread pauses every few spans.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar, overload

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.telemetry.trace import SpanCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_log = logging.getLogger(__name__)

MAX_EXPORT_SPANS: Final = 512

_PIECE: Final = 8  # spans between pauses: about 0.2 ms
_PAUSE_S: Final = 0.0001
_ABORT_S: Final = 0.5
_FIRST_BACKOFF_S: Final = 1.0
_MAX_BACKOFF_S: Final = 30.0

Record = TypeVar("Record")


class QueueLimits(msgspec.Struct, frozen=True):
    """`max_spans` wait at most, `delay_s` at most until they are sent, `max_export_spans` at a time."""

    max_spans: int = 8192
    delay_s: float = 5.0
    max_export_spans: int = MAX_EXPORT_SPANS

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> QueueLimits:
        """What OTEL_BSP_MAX_QUEUE_SIZE, _SCHEDULE_DELAY (ms) and _MAX_EXPORT_BATCH_SIZE say, the last up to
        `MAX_EXPORT_SPANS`; what is not a positive number is ignored with a warning."""
        default = QueueLimits()
        return QueueLimits(
            _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", default.max_spans),
            _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", round(default.delay_s * 1000)) / 1000,
            min(
                _positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", MAX_EXPORT_SPANS),
                MAX_EXPORT_SPANS,
            ),
        )


class PacedSpans(Sequence[ReadableSpan]):
    """Spans whose reader pauses every few of them, so that who encodes them lets others run."""

    def __init__(self, spans: Sequence[ReadableSpan]) -> None:
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> ReadableSpan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReadableSpan]: ...
    def __getitem__(self, index: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        return self._spans[index]

    def __iter__(self) -> Iterator[ReadableSpan]:
        for number, span in enumerate(self._spans, 1):
            yield span
            if number % _PIECE == 0:
                time.sleep(_PAUSE_S)


class SpanQueue(Generic[Record]):
    """`spans_of` makes the spans of a record, in the thread. `put` is called by one thread."""

    def __init__(
        self,
        exporter: SpanExporter,
        spans_of: Callable[[Record], Iterator[ReadableSpan]],
        limits: QueueLimits,
    ) -> None:
        self._exporter = exporter
        self._spans_of = spans_of
        self._limits = limits
        self._records: deque[tuple[Record, int]] = deque()  # with the number of spans that each makes
        self._rest: Iterator[ReadableSpan] = iter(())  # of the record that the thread has taken last
        self._rest_spans = 0
        # Each is written by one thread only: neither ever waits for a lock that the other holds.
        self._put = self._overflowed = self._left = 0  # by `put` and `close`
        self._taken = self._exported = self._failed = 0  # by the thread
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._aborted = False
        self._thread = threading.Thread(target=self._run, name="trace-export", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> SpanCounts:
        return SpanCounts(self._exported, self._overflowed + self._left, self._failed)

    @property
    def waiting(self) -> int:
        """How many spans the waiting records make."""
        return self._put - self._overflowed - self._taken

    def put(self, record: Record, spans: int) -> None:
        """Send the spans of a record, of which there are as many as this, when their turn comes."""
        limits = self._limits
        self._put += spans
        self._records.append((record, spans))
        while self.waiting > limits.max_spans:
            try:
                self._overflowed += self._records.popleft()[1]
            except IndexError:  # the thread has taken the last one
                break
        if self.waiting >= limits.max_export_spans and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Send what waits within `timeout_s`; then cancel the export that hangs and drop the rest."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._aborted = True
        self._exporter.shutdown()
        self._thread.join(_ABORT_S)
        self._left = self._put - self._overflowed - self._exported - self._failed

    def _run(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            self._wake.wait(self._limits.delay_s)
            self._wake.clear()
            last = self._closing.is_set()
            while not self._aborted and (batch := self._next()):
                if self._export(batch):
                    backoff_s = _FIRST_BACKOFF_S
                elif last:
                    break  # no time to see whether it comes back
                else:
                    self._closing.wait(backoff_s)
                    backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
            if last:
                return

    def _next(self) -> list[ReadableSpan]:
        """Take the next spans to send, none when no record waits."""
        batch: list[ReadableSpan] = []
        while len(batch) < self._limits.max_export_spans:
            try:
                span = next(self._rest, None)
            except Exception:
                _log.exception("a trace was lost: its spans could not be made")
                self._failed += self._rest_spans
                self._rest = iter(())
                continue
            if span is not None:
                batch.append(span)
                self._rest_spans -= 1
                if len(batch) % (4 * _PIECE) == 0:
                    time.sleep(_PAUSE_S)
                continue
            try:
                record, spans = self._records.popleft()
            except IndexError:
                break
            self._taken += spans
            self._rest_spans = spans
            self._rest = self._spans_of(record)
        return batch

    def _export(self, batch: list[ReadableSpan]) -> bool:
        dropped = self._overflowed
        try:
            succeeded = self._exporter.export(PacedSpans(batch)) is SpanExportResult.SUCCESS
        except Exception:
            _log.exception("spans could not be exported")
            succeeded = False
        if succeeded:
            self._exported += len(batch)
        else:
            self._failed += len(batch)
        if self._overflowed > dropped:
            _log.warning("the trace collector does not keep up: spans are dropped")
        return succeeded


def _positive(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value <= 0:
        _log.warning("%s=%s is no positive whole number, %d holds", variable, text, default)
        return default
    return value
