"""What `crossgate explain` says, as texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossgate.cli import gateways_figures as figures
from crossgate.cli.gateways_status import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protos import admin_pb2 as pb


def explain_lines(asked: str, answer: pb.ExplainResponse) -> Iterator[str]:
    """Say where a request would go, why, and what it would meet there."""
    revision = f" (revision {answer.revision})" if answer.revision else ""
    yield f"{asked}: {_why(answer)}{revision}"
    if answer.problem:
        yield f"  its document is not valid, and the one before it serves: {answer.problem}"
    if answer.waits:
        decides = f"that of revision {answer.applied} decides" if answer.applied else "none is in force"
        yield (f"  the routing of revision {answer.revision} waits for {listed(answer.waits)}; {decides}")
    for way in answer.ways:
        yield from _way(way)
    if answer.HasField("failure"):
        yield f"answer: {answer.failure.code}: {answer.failure.message}"


def _why(answer: pb.ExplainResponse) -> str:
    version = answer.ways[0].version if answer.ways else ""
    match answer.by:
        case "version":
            return f"the request names version {version}"
        case "label":
            return f"the request names a label of version {version}"
        case "rule":
            conditions = ", ".join(f"{key}={value}" for key, value in sorted(answer.conditions.items()))
            return f"rule {answer.rule} matches ({conditions}) and leads to version {version}"
        case "only":
            return f"version {version} takes all traffic"
        case "sticky":
            return f"{answer.sticky}={answer.sticky_value} sticks to version {version}"
        case "weights":
            without = f", without metadata {answer.sticky}" if answer.sticky else ""
            return f"chance decides by the weights{without}"
    return "there is no version to choose from"


def _way(way: pb.Way) -> Iterator[str]:
    share = f" for {figures.percent(100 * way.share)}" if way.share < 1 else ""
    if way.asleep:
        yield f"  version {way.version}{share}: loaded on demand, the request waits for it"
    elif way.HasField("servable"):
        servable = way.servable
        batches = (
            f"batches of up to {servable.max_batch_size}, waiting at most {servable.max_queue_delay_us} us"
            if servable.batchable
            else f"not batched: {servable.why_not_batchable or 'each request runs alone'}"
        )
        yield (
            f"  version {way.version}{share}: {servable.queue_depth} of {servable.max_queue_size} waiting, "
            f"{servable.in_flight} in flight; {batches}"
        )
        for hosting in servable.hostings:
            yield (
                f"    slot {hosting.slot} ({hosting.device}): {hosting.count} at once, "
                f"{hosting.batches_in_flight} batches in flight, "
                f"{hosting.slot_batches_in_flight} on the slot in all"
            )
        if not servable.hostings:
            yield "    on no slot: its worker is starting again"
    elif way.version:
        yield f"  version {way.version}{share}: not loaded"
    if way.HasField("failure") and way.share < 1:
        yield f"    {way.failure.code}: {way.failure.message}"
