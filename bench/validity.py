"""Why a round counts for nothing. One reason voids it; a peer with a void round has no figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load import Summary
    from bench.peers.server import Counts

MOST_REASONS = 4


@dataclass(frozen=True)
class SampleReport:
    """Of the requests that were sent beside the load and decoded."""

    sent: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What one round left behind. `answer_bytes` is the framed length of one right answer, per h2load;
    `before` and `after` are the server's counts around load and samples, None for a server without counts."""

    summaries: Sequence[Summary]
    answer_bytes: Sequence[int]
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
    reasons = []
    for summary, answer_bytes in zip(evidence.summaries, evidence.answer_bytes, strict=True):
        if not summary.requests == summary.done == summary.succeeded == summary.status_2xx:
            reasons.append(
                f"h2load: {summary.succeeded} of {summary.requests} succeeded, {summary.failed} failed, "
                f"{summary.errored} errored, {summary.timed_out} timed out"
            )
        wanted = summary.done * answer_bytes
        if summary.data_bytes != wanted:
            reasons.append(
                f"{summary.data_bytes} bytes of answers instead of {wanted} "
                f"({summary.done} x {answer_bytes}): some answers are errors or of another length"
            )
    reasons += evidence.samples.wrong
    if evidence.samples.sent == 0:
        reasons.append("no sampled answer was decoded during the load")
    if evidence.before is not None and evidence.after is not None:
        sent = sum(summary.requests for summary in evidence.summaries) + evidence.samples.sent
        counted = evidence.after.requests - evidence.before.requests
        if counted != sent:
            reasons.append(f"the server counted {counted} requests, {sent} were sent")
        if failures := evidence.after.failures - evidence.before.failures:
            reasons.append(f"the server counted {failures} failures")
    return reasons
