"""The accounts as Prometheus text (exposition format 0.0.4).

The sample lines are written here rather than by prometheus_client, whose generic path takes about 15 us a
sample on the event loop's thread: more than a second for a thousand versions, and 0.15 s of added latency
for a hundred. It still writes the process's own metrics, and its parser reads all of this back in the
tests. `steps` goes further and cuts the work into slices of about a millisecond, between which the listener
lets requests through.
"""

from __future__ import annotations

import logging
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.telemetry.histogram import BATCH_SIZE_BOUNDS, LATENCY_BOUNDS_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.telemetry.account import VersionAccount
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.histogram import Histogram
    from gateway.telemetry.series import Reading


CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_ACCOUNTS_PER_STEP = 25
_NS_PER_S = 1_000_000_000

_log = logging.getLogger(__name__)


class Exposition:
    """Renders accounts, readings and process metrics."""

    content_type: Final = CONTENT_TYPE

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._read_errors: dict[str, int] = {}  # {series name: scrapes without it}
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def render(self) -> bytes:
        """All metrics at once."""
        return b"".join(self.steps())

    def steps(self) -> Iterator[bytes]:
        """All metrics, piece by piece; other code may run, and record, between the pieces."""
        accounts = [
            (account, _labels(model=account.model, version=account.version)) for account in self._accounts
        ]
        for name, kind, help_text, lines in _FAMILIES:
            yield _header(name, kind, help_text)
            for start in range(0, len(accounts), _ACCOUNTS_PER_STEP):
                part = accounts[start : start + _ACCOUNTS_PER_STEP]
                yield "".join([line for account, labels in part for line in lines(account, labels)]).encode()
        yield _header(
            _CONFIG_APPLY, "histogram", "From seeing a change of the configuration to serving by it."
        )
        yield "".join(_seconds(_CONFIG_APPLY, "", self._accounts.config_apply_seconds)).encode()
        for reading in list(self._accounts.readings.values()):
            yield self._read(reading)
        yield self._error_lines()
        yield generate_latest(self._process)

    def _read(self, reading: Reading) -> bytes:
        """The lines of one reading; a source that fails costs its own series only."""
        series = reading.series
        try:
            lines = []
            for values, value in reading.read():
                labels = _labels(**dict(zip(series.labels, values, strict=True)))
                lines.append(f"{series.name}{_braced(labels)} {value!r}\n")
        except Exception:
            self._read_errors[series.name] = self._read_errors.get(series.name, 0) + 1
            _log.warning("cannot read the metric %s", series.name, exc_info=True)
            return b""
        return _header(series.name, series.kind, series.help) + "".join(lines).encode()

    def _error_lines(self) -> bytes:
        name = "crossgate_scrape_errors_total"
        lines = [f"{name}{{{_labels(series=series)}}} {n}\n" for series, n in self._read_errors.items()]
        return (
            _header(name, "counter", "Scrapes that lack a series because its source failed.")
            + "".join(lines).encode()
        )


def _requests(account: VersionAccount, labels: str) -> Iterator[str]:
    for outcome, count in account.outcomes.items():
        yield f'crossgate_requests_total{{{labels},outcome="{outcome.value}"}} {count}\n'


def _request_seconds(account: VersionAccount, labels: str) -> list[str]:
    return _seconds("crossgate_request_seconds", labels, account.request_seconds)


def _queue_seconds(account: VersionAccount, labels: str) -> list[str]:
    return _seconds("crossgate_queue_seconds", labels, account.queue_seconds)


def _run_seconds(account: VersionAccount, labels: str) -> Iterator[str]:
    for name, device in list(account.devices.items()):
        yield from _seconds("crossgate_run_seconds", f"{labels},{_labels(device=name)}", device.run_seconds)


def _batch_size(account: VersionAccount, labels: str) -> Iterator[str]:
    for name, device in list(account.devices.items()):
        on_device = f"{labels},{_labels(device=name)}"
        sizes = device.batch_size
        yield from _histogram("crossgate_batch_size", on_device, sizes, _ROWS, sizes.sum)


def _batches(account: VersionAccount, labels: str) -> Iterator[str]:
    for name, device in list(account.devices.items()):
        for reason, count in list(device.batches.items()):
            yield f"crossgate_batches_total{{{labels},{_labels(device=name, close_reason=reason)}}} {count}\n"


def _rows(account: VersionAccount, labels: str) -> Iterator[str]:
    yield f"crossgate_rows_total{{{labels}}} {account.inference_count}\n"


def _reruns(account: VersionAccount, labels: str) -> Iterator[str]:
    yield f"crossgate_reruns_total{{{labels}}} {account.reruns}\n"


def _rejected(account: VersionAccount, labels: str) -> Iterator[str]:
    yield f"crossgate_rejected_total{{{labels}}} {account.rejected}\n"


_SECONDS: Final = (*(f"{bound / _NS_PER_S:.12g}" for bound in LATENCY_BOUNDS_NS), "+Inf")
_ROWS: Final = (*map(str, BATCH_SIZE_BOUNDS), "+Inf")
_CONFIG_APPLY: Final = "crossgate_config_apply_seconds"
_FAMILIES: Final[tuple[tuple[str, str, str, Callable[[VersionAccount, str], Iterable[str]]], ...]] = (
    ("crossgate_requests_total", "counter", "Requests by how they ended.", _requests),
    (
        "crossgate_request_seconds",
        "histogram",
        "From arrival to answer, of requests that were queued.",
        _request_seconds,
    ),
    ("crossgate_queue_seconds", "histogram", "Waiting for a device, of successful requests.", _queue_seconds),
    ("crossgate_run_seconds", "histogram", "One execution of a batch.", _run_seconds),
    ("crossgate_batch_size", "histogram", "Rows of one execution.", _batch_size),
    ("crossgate_batches_total", "counter", "Executions by why the batch was closed.", _batches),
    ("crossgate_rows_total", "counter", "Rows of successful requests.", _rows),
    ("crossgate_reruns_total", "counter", "Requests run again because their batch was lost.", _reruns),
    ("crossgate_rejected_total", "counter", "Requests answered without being queued.", _rejected),
)


def _header(name: str, kind: str, help_text: str) -> bytes:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n".encode()


def _labels(**values: str) -> str:
    return ",".join([f'{name}="{_escape(value)}"' for name, value in values.items()])


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _seconds(name: str, labels: str, durations_ns: Histogram) -> list[str]:
    return _histogram(name, labels, durations_ns, _SECONDS, durations_ns.sum / _NS_PER_S)


def _histogram(
    name: str, labels: str, histogram: Histogram, bounds: tuple[str, ...], total: float
) -> list[str]:
    prefix = f'{name}_bucket{{{labels}{"," if labels else ""}le="'
    counts = list(accumulate(histogram.bucket_counts))
    lines = [f'{prefix}{bound}"}} {count}\n' for bound, count in zip(bounds, counts, strict=True)]
    lines.append(f"{name}_sum{_braced(labels)} {total!r}\n")
    lines.append(f"{name}_count{_braced(labels)} {counts[-1]}\n")
    return lines
