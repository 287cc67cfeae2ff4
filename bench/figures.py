"""What one round of one subject yields, and the median of several rounds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DISTURBED_SHARE = 0.05


@dataclass(frozen=True)
class Check:
    """The same round again, by another load generator."""

    generator: str
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    generator_cpu_us: float


@dataclass(frozen=True)
class Figures:
    """`cpu_us` is user + system time of all server processes per request; `mean_batch` is None where the
    server does not say. `void` holds the reasons why the round does not count. `details` differ from subject
    to subject. `generator_cpu_us` is what a request costs the load generator."""

    requests: int
    wall_s: float
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    pss_bytes: int
    rss_bytes: int
    mean_batch: float | None = None
    cpu_us_by_process: tuple[float, ...] = ()  # the server's first process first
    generator_cpu_us: float = 0.0
    check: Check | None = None
    others_share: float = 0.0  # of the machine's CPU time, taken by work that is not ours
    void: tuple[str, ...] = ()
    details: dict[str, object] = field(default_factory=dict)


def disturbed(figures: Figures) -> bool:
    """Whether other work may have changed this round's figures."""
    return figures.others_share > DISTURBED_SHARE


def median(rounds: Sequence[Figures]) -> Figures | None:
    """Median of each figure by itself; None if there is no round or any round is void."""
    if not rounds or any(one.void for one in rounds):
        return None
    batches = [one.mean_batch for one in rounds if one.mean_batch is not None]
    return Figures(
        requests=round(statistics.median(one.requests for one in rounds)),
        wall_s=statistics.median(one.wall_s for one in rounds),
        requests_per_s=statistics.median(one.requests_per_s for one in rounds),
        p50_us=statistics.median(one.p50_us for one in rounds),
        p99_us=statistics.median(one.p99_us for one in rounds),
        cpu_us=statistics.median(one.cpu_us for one in rounds),
        pss_bytes=round(statistics.median(one.pss_bytes for one in rounds)),
        rss_bytes=round(statistics.median(one.rss_bytes for one in rounds)),
        mean_batch=statistics.median(batches) if len(batches) == len(rounds) else None,
        cpu_us_by_process=_by_process([one.cpu_us_by_process for one in rounds]),
        generator_cpu_us=statistics.median(one.generator_cpu_us for one in rounds),
        check=_median_check([one.check for one in rounds if one.check is not None]),
        others_share=statistics.median(one.others_share for one in rounds),
    )


def _median_check(checks: Sequence[Check]) -> Check | None:
    if not checks:
        return None
    return Check(
        checks[0].generator,
        requests_per_s=statistics.median(one.requests_per_s for one in checks),
        p50_us=statistics.median(one.p50_us for one in checks),
        p99_us=statistics.median(one.p99_us for one in checks),
        cpu_us=statistics.median(one.cpu_us for one in checks),
        generator_cpu_us=statistics.median(one.generator_cpu_us for one in checks),
    )


def _by_process(rounds: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Empty if the number of processes changed between rounds: then they cannot be told apart."""
    if len({len(one) for one in rounds}) > 1:
        return ()
    return tuple(statistics.median(values) for values in zip(*rounds, strict=True))
