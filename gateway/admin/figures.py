"""Figures of one account as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from gateway.admin.recent import Recent
    from gateway.telemetry.account import VersionAccount


def figures_of(recent: Recent, now_ns: int, account: VersionAccount) -> pb.Figures:
    """Return the rates of the window and the totals; outcomes that never came are left out."""
    live = recent.figures(now_ns, account)
    message = pb.Figures(
        window_seconds=live.window_s,
        requests_per_second=live.requests_per_s,
        errors_per_second=live.errors_per_s,
        mean_batch_size=live.mean_batch_size,
        p50_seconds=live.p50_s,
        p99_seconds=live.p99_s,
        requests_total=account.succeeded + sum(account.failures.values()),
    )
    for outcome, count in account.outcomes.items():
        if count:
            message.outcomes_total[outcome.value] = count
    return message
