"""What is exposed of each version's account."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.telemetry.series import Distribution, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.telemetry.account import Exemplar, VersionAccount


class Family(NamedTuple):
    """A series of which every account has points; `points` are this account's."""

    series: Series
    points: Callable[[VersionAccount], Iterable[Sample | Distribution]]


NO_EXEMPLARS: Final[Mapping[int, Exemplar]] = MappingProxyType({})
_VERSION: Final = ("model", "version")
_DEVICE: Final = (*_VERSION, "device")


def _requests(account: VersionAccount) -> list[Sample]:
    model, version = account.model, account.version
    return [Sample((model, version, o.value), count) for o, count in account.outcomes.items()]


def _request_seconds(account: VersionAccount) -> list[Distribution]:
    labels = (account.model, account.version)
    return [Distribution(labels, account.request_seconds, account.exemplars)]


def _queue_seconds(account: VersionAccount) -> list[Distribution]:
    return [Distribution((account.model, account.version), account.queue_seconds, NO_EXEMPLARS)]


def _run_seconds(account: VersionAccount) -> list[Distribution]:
    model, version = account.model, account.version
    return [
        Distribution((model, version, name), device.run_seconds, NO_EXEMPLARS)
        for name, device in account.devices.items()
    ]


def _batch_size(account: VersionAccount) -> list[Distribution]:
    model, version = account.model, account.version
    return [
        Distribution((model, version, name), device.batch_size, NO_EXEMPLARS)
        for name, device in account.devices.items()
    ]


def _batches(account: VersionAccount) -> list[Sample]:
    model, version = account.model, account.version
    return [
        Sample((model, version, name, reason), count)
        for name, device in account.devices.items()
        for reason, count in device.batches.items()
    ]


def _rows(account: VersionAccount) -> list[Sample]:
    return [Sample((account.model, account.version), account.inference_count)]


def _reruns(account: VersionAccount) -> list[Sample]:
    return [Sample((account.model, account.version), account.reruns)]


def _rejected(account: VersionAccount) -> list[Sample]:
    return [Sample((account.model, account.version), account.rejected)]


FAMILIES: Final = (
    Family(
        Series("crossgate_requests_total", "Requests by how they ended.", "counter", (*_VERSION, "outcome")),
        _requests,
    ),
    Family(
        Series(
            "crossgate_request_seconds",
            "From arrival to answer, of requests that were queued.",
            "histogram",
            _VERSION,
        ),
        _request_seconds,
    ),
    Family(
        Series(
            "crossgate_queue_seconds", "Waiting for a device, of successful requests.", "histogram", _VERSION
        ),
        _queue_seconds,
    ),
    Family(Series("crossgate_run_seconds", "One execution of a batch.", "histogram", _DEVICE), _run_seconds),
    Family(Series("crossgate_batch_size", "Rows of one execution.", "histogram", _DEVICE), _batch_size),
    Family(
        Series(
            "crossgate_batches_total",
            "Executions by why the batch was closed.",
            "counter",
            (*_DEVICE, "close_reason"),
        ),
        _batches,
    ),
    Family(Series("crossgate_rows_total", "Rows of successful requests.", "counter", _VERSION), _rows),
    Family(
        Series(
            "crossgate_reruns_total", "Requests run again because their batch was lost.", "counter", _VERSION
        ),
        _reruns,
    ),
    Family(
        Series("crossgate_rejected_total", "Requests answered without being queued.", "counter", _VERSION),
        _rejected,
    ),
)
