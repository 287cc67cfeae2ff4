"""What live gateways say of a document that is stored: whether it is in force there, and else why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crossgate.cli.documents_plan import Cluster
    from gateway.config.status import ModelReport

_MOST = 3  # reasons of one gateway


def in_force_lines(model: str, revision: int, cluster: Cluster) -> Iterator[str]:
    """Yield a line for each live gateway on which something else is in force than the document of a model
    that was written at `revision`.
    """
    for presence in sorted(cluster.presences, key=lambda each: each.gateway):
        report = cluster.reports.get((presence.gateway, model))
        seen = max(presence.observed, report.revision if report is not None else 0)
        if seen < revision:
            yield f"gateway {presence.gateway} has not seen revision {revision} yet"
        elif report is not None and (why := _why(report)):
            yield f"gateway {presence.gateway} {why}"


def _why(report: ModelReport) -> str:
    """Return what is in force instead and why, '' where the document is."""
    if report.problem:
        return (
            f"serves the document before that of revision {report.revision}, which is not valid: "
            f"{report.problem}"
        )
    if report.applied >= report.revision:
        return ""
    there = f"the routing of revision {report.applied}" if report.applied else "no routing"
    return f"has {there} in force, and not that of {report.revision}, which waits for {_listed(report.waits)}"


def _listed(waits: Sequence[str]) -> str:
    more = f" and {len(waits) - _MOST} more" if len(waits) > _MOST else ""
    return ("; ".join(waits[:_MOST]) or "its versions") + more
