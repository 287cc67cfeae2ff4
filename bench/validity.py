"""Why a round counts for nothing. One reason voids it; a peer with a void round has no figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Loaded
    from bench.peers.server import Counts

MOST_REASONS = 4


@dataclass(frozen=True)
class SampleReport:
    """Of the requests that were sent beside the load and decoded."""

    sent: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What one round left behind. `before` and `after` are the server's counts around load and samples, None
    for a server without counts."""

    loaded: Loaded
    samples: SampleReport
    before: Counts | None
    after: Counts | None


def shortened(reasons: Sequence[str]) -> tuple[str, ...]:
    """Each reason once, and no more than a reader wants."""
    different = list(dict.fromkeys(reasons))
    kept = different[:MOST_REASONS]
    if hidden := len(reasons) - len(kept):
        kept.append(f"and {hidden} more")
    return tuple(kept)


def void_reasons(evidence: Evidence) -> list[str]:
    """Empty if every request was answered, with data of the right length, counted once, and all samples are
    right."""
    reasons = [*evidence.loaded.wrong, *evidence.samples.wrong]
    if evidence.samples.sent == 0:
        reasons.append("no sampled answer was decoded during the load")
    if evidence.before is not None and evidence.after is not None:
        sent = evidence.loaded.sent + evidence.samples.sent
        counted = evidence.after.requests - evidence.before.requests
        if counted != sent:
            reasons.append(f"the server counted {counted} requests, {sent} were sent")
        if failures := evidence.after.failures - evidence.before.failures:
            reasons.append(f"the server counted {failures} failures")
    return reasons
