"""Changes that were committed, and what probes say about when and how they were applied. Pure functions."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.configuration_prober import Probe

MOST_DEVIATIONS = 5.0  # of the share that a version has among answers


@dataclass(frozen=True)
class Change:
    """`committed_ns` is when the commit returned; the gateway may have heard of it a little before."""

    kind: str
    revision: int
    committed_ns: int
    split: Mapping[str, int]  # {version: weight}

    @property
    def versions(self) -> frozenset[str]:
        """Those that may answer."""
        return frozenset(version for version, weight in self.split.items() if weight)


@dataclass(frozen=True)
class Quantiles:
    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles | None:
        """By the nearest rank; None without values."""
        if not values:
            return None
        ordered = sorted(values)
        rank = {share: ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99)}
        return cls(len(ordered), rank[0.5], rank[0.99], ordered[-1])


def latencies_ms(changes: Sequence[Change], probes: Sequence[Probe]) -> list[float | None]:
    """From each commit to the first answer of its revision or a later one; None where none came. Below 0: the
    gateway was faster than etcd's answer to who had committed.
    """
    seen = sorted((probe.revision, probe.answered_ns) for probe in probes if not probe.error)
    revisions = [revision for revision, _ in seen]
    first_ns: list[int] = [0] * len(seen)  # the earliest answer of this revision or a later one
    earliest = 0
    for position in range(len(seen) - 1, -1, -1):
        earliest = min(earliest, seen[position][1]) if earliest else seen[position][1]
        first_ns[position] = earliest
    found: list[float | None] = []
    for change in changes:
        position = bisect.bisect_left(revisions, change.revision)
        came = position < len(first_ns)
        found.append((first_ns[position] - change.committed_ns) / 1e6 if came else None)
    return found


def flaws(changes: Sequence[Change], probes: Sequence[Probe]) -> list[str]:
    """What no answer may show: a failure, a revision after a later one, a version that the document of its
    revision does not name, values of another version than the answer says.
    """
    by_revision = {change.revision: change for change in changes}
    found = []
    newest = 0
    for probe in probes:
        if probe.error:
            found.append(f"a probe failed: {probe.error}")
            continue
        if probe.revision < newest:
            found.append(f"revision {probe.revision} answered after {newest}")
        newest = max(newest, probe.revision)
        change = by_revision.get(probe.revision)
        if change is None:
            found.append(f"revision {probe.revision} answered, which nobody has committed")
        elif probe.version not in change.versions:
            found.append(f"version {probe.version} answered at revision {probe.revision}")
        if probe.answered_by != probe.version:
            found.append(f"an answer of version {probe.version} has values of {probe.answered_by}")
    return found


def share_deviation(changes: Sequence[Change], probes: Sequence[Probe], version: str) -> float:
    """By how many standard deviations more (or, below 0, less) often a version answered than the weights of
    each answer's revision say.
    """
    share = {  # {revision: what the version is to have}
        change.revision: change.split.get(version, 0) / sum(change.split.values()) for change in changes
    }
    counted = [probe for probe in probes if not probe.error and probe.revision in share]
    expected = sum(share[probe.revision] for probe in counted)
    variance = sum(share[probe.revision] * (1 - share[probe.revision]) for probe in counted)
    seen = sum(probe.version == version for probe in counted)
    return (seen - expected) / math.sqrt(variance) if variance else 0.0
