"""Rates and quantiles of the last seconds, as differences of what the accounts have counted.

Samples are cumulative, so whoever asks gets exact rates from the start of the window to this moment, whatever
the pace of the samples. An account that has not changed shares its counts with the sample before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.telemetry.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway.telemetry.account import VersionAccount

WINDOW_NS: Final = 10_000_000_000
_NS_PER_S = 1_000_000_000
_ACCOUNTS_PER_STEP: Final = 200


class Counts(NamedTuple):
    """What an account had counted at one moment. `failed` has those that were cancelled."""

    succeeded: int
    failed: int
    cancelled: int
    rows: int
    runs: int
    buckets: tuple[int, ...]  # of request_seconds


class Sample(NamedTuple):
    """Everything at one moment."""

    at_ns: int
    counts: Mapping[VersionAccount, Counts]
    busy_ns: Mapping[str, int]  # {slot: capacity that runs had used}


@dataclass(frozen=True)
class RecentFigures:
    """Of the last `window_s`. Errors are requests that failed, not those that were cancelled; a batch counts
    the rows of its successes.
    """

    window_s: float
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    mean_batch_size: float | None = None
    p50_s: float | None = None
    p99_s: float | None = None


class Recent:
    """`sample` is to be called every few seconds. The window is as long as there are samples for, at most
    WINDOW_NS and the time between two of them.
    """

    def __init__(self, now_ns: int) -> None:
        self._samples = deque([Sample(now_ns, {}, {})])

    def sample(self, now_ns: int, accounts: Iterable[VersionAccount], busy_ns: Mapping[str, int]) -> None:
        """Keep what is counted now."""
        for _ in self.steps(now_ns, accounts, busy_ns):
            pass

    def steps(
        self, now_ns: int, accounts: Iterable[VersionAccount], busy_ns: Mapping[str, int]
    ) -> Iterator[None]:
        """`sample` in pieces of less than a millisecond; other code may run between them."""
        before = self._samples[-1].counts
        counts: dict[VersionAccount, Counts] = {}
        for account in accounts:
            counts[account] = _counts(account, before.get(account))
            if not len(counts) % _ACCOUNTS_PER_STEP:
                yield
        self._samples.append(Sample(now_ns, counts, busy_ns))
        while len(self._samples) > 1 and now_ns - self._samples[1].at_ns >= WINDOW_NS:
            self._samples.popleft()

    def figures(self, now_ns: int, account: VersionAccount) -> RecentFigures:
        """Return what became of an account's requests in the window."""
        first = self._samples[0]
        window_s = (now_ns - first.at_ns) / _NS_PER_S
        then = first.counts.get(account)
        now = _counts(account, self._samples[-1].counts.get(account))
        if window_s <= 0 or now is then:
            return RecentFigures(max(window_s, 0.0))
        if then is None:  # it was opened later
            then = Counts(0, 0, 0, 0, 0, (0,) * len(now.buckets))
        requests = now.succeeded + now.failed - then.succeeded - then.failed
        errors = now.failed - now.cancelled - then.failed + then.cancelled
        runs = now.runs - then.runs
        buckets = [late - early for late, early in zip(now.buckets, then.buckets, strict=True)]
        bounds = account.request_seconds.bounds
        return RecentFigures(
            window_s,
            requests / window_s,
            errors / window_s,
            (now.rows - then.rows) / runs if runs else None,
            quantile(0.5, buckets, bounds),
            quantile(0.99, buckets, bounds),
        )

    def utilisation(self, now_ns: int, slot: str, capacity: int, busy_ns: int) -> float:
        """Return the share of a slot's capacity that runs have used in the window."""
        first = self._samples[0]
        elapsed_ns = (now_ns - first.at_ns) * capacity
        used_ns = busy_ns - first.busy_ns.get(slot, 0)
        # a long run is counted when it ends, all at once
        return min(max(used_ns / elapsed_ns, 0.0), 1.0) if elapsed_ns > 0 else 0.0


def quantile(q: float, buckets: Sequence[int], bounds: Sequence[int]) -> float | None:
    """Return a quantile in seconds from counts by bucket, the last for values above all bounds (in ns); None
    without values. Interpolated linearly within its bucket, as Prometheus does; above all bounds it is the
    last one.
    """
    rank = q * sum(buckets)
    if rank <= 0:
        return None
    below = 0
    for i, count in enumerate(buckets[:-1]):
        if below + count >= rank:
            low_ns = bounds[i - 1] if i else 0
            return (low_ns + (bounds[i] - low_ns) * (rank - below) / count) / _NS_PER_S
        below += count
    return bounds[-1] / _NS_PER_S


def _counts(account: VersionAccount, before: Counts | None) -> Counts:
    failed = sum(account.failures.values())
    if before is not None and before.succeeded == account.succeeded and before.failed == failed:
        return before
    return Counts(
        account.succeeded,
        failed,
        account.failures.get(Outcome.CANCELLED, 0),
        account.inference_count,
        sum([sum(device.batches.values()) for device in account.devices.values()]),
        account.request_seconds.bucket_counts,
    )
