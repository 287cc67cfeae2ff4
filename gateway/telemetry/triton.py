"""Triton's names for what is counted here, for dashboards that exist.

Names and meanings: triton-inference-server/server, `docs/user_guide/metrics.md`, and core, `src/metrics.cc`
and `src/infer_stats.cc`. Durations are of successful requests, in microseconds since the start. Reasons of
failures: REJECTED before they ran for want of room or time, CANCELED by the caller, BACKEND during the run,
OTHER.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.telemetry.families import Family
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.series import Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.telemetry.account import VersionAccount
    from gateway.telemetry.statistics import InferenceStatistics

_LABELS: Final = ("model", "version")
_NS_PER_US: Final = 1000
_REASONS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.EXHAUSTED: "REJECTED",
        Outcome.EXPIRED: "REJECTED",
        Outcome.CANCELLED: "CANCELED",
        Outcome.FAILED: "BACKEND",
        Outcome.BUG: "BACKEND",
    }
)

PENDING: Final = Series(
    "nv_inference_pending_request_count",
    "Instantaneous number of pending requests awaiting execution per-model.",
    "gauge",
    _LABELS,
)
GPU_UTILIZATION: Final = Series(
    "nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", "gauge", ("gpu_uuid",)
)
GPU_MEMORY: Final = Series("nv_gpu_memory_total_bytes", "GPU total memory, in bytes", "gauge", ("gpu_uuid",))
GPU_MEMORY_USED: Final = Series(
    "nv_gpu_memory_used_bytes", "GPU used memory, in bytes", "gauge", ("gpu_uuid",)
)
GPU_POWER: Final = Series("nv_gpu_power_usage", "GPU power usage in watts", "gauge", ("gpu_uuid",))
GPU_POWER_LIMIT: Final = Series(
    "nv_gpu_power_limit", "GPU power management limit in watts", "gauge", ("gpu_uuid",)
)


def _named(account: VersionAccount) -> bool:
    """Triton counts nothing for names that do not exist."""
    return bool(account.version)


def _success(account: VersionAccount) -> list[Sample]:
    return [Sample((account.model, account.version), account.succeeded)] if _named(account) else []


def _failure(account: VersionAccount) -> list[Sample]:
    if not _named(account):
        return []
    by_reason = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for outcome, count in account.failures.items():
        by_reason[_REASONS.get(outcome, "OTHER")] += count
    model, version = account.model, account.version
    return [Sample((model, version, reason), count) for reason, count in by_reason.items()]


def _rows(account: VersionAccount) -> list[Sample]:
    return [Sample((account.model, account.version), account.inference_count)] if _named(account) else []


def _executions(account: VersionAccount) -> list[Sample]:
    if not _named(account):
        return []
    count = sum(each.count for device in account.devices.values() for each in device.executions)
    return [Sample((account.model, account.version), count)]


def _duration(name: str, help_text: str, ns: Callable[[InferenceStatistics], int]) -> Family:
    def points(account: VersionAccount) -> list[Sample]:
        if not _named(account):
            return []
        statistics = account.inference_statistics()
        return [Sample((account.model, account.version), ns(statistics) // _NS_PER_US)]

    return Family(Series(f"nv_inference_{name}_duration_us", help_text, "counter", _LABELS), points)


FAMILIES: Final = (
    Family(
        Series(
            "nv_inference_request_success",
            "Number of successful inference requests, all batch sizes",
            "counter",
            _LABELS,
        ),
        _success,
    ),
    Family(
        Series(
            "nv_inference_request_failure",
            "Number of failed inference requests, all batch sizes",
            "counter",
            (*_LABELS, "reason"),
        ),
        _failure,
    ),
    Family(
        Series(
            "nv_inference_count",
            "Number of inferences performed (does not include cached requests)",
            "counter",
            _LABELS,
        ),
        _rows,
    ),
    Family(
        Series(
            "nv_inference_exec_count",
            "Number of model executions performed (does not include cached requests)",
            "counter",
            _LABELS,
        ),
        _executions,
    ),
    _duration(
        "request",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda statistics: statistics.success.ns,
    ),
    _duration(
        "queue",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda statistics: statistics.queue.ns,
    ),
    _duration(
        "compute_input",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_input.ns,
    ),
    _duration(
        "compute_infer",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_infer.ns,
    ),
    _duration(
        "compute_output",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        lambda statistics: statistics.compute_output.ns,
    ),
)
