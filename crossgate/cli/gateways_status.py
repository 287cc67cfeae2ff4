"""What `crossgate status` shows of a gateway, as texts: headlines, tables and remarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossgate.cli import gateways_figures as figures
from crossgate.cli.durations import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protos import admin_pb2 as pb

MODEL_HEADER = ("model", "version", "state", "split", "req/s", "err/s", "queue", "batch", "p50", "p99")
SLOT_HEADER = ("slot", "device", "node", "state", "use", "runs", "restarts", "memory")


@dataclass(frozen=True)
class StatusText:
    """`remarks` are what an operator should look at."""

    headlines: tuple[str, ...]
    slots: tuple[tuple[str, ...], ...]
    models: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]


def status_text(pages: Sequence[pb.StatusResponse], *, details: bool = False) -> StatusText:
    """Return the texts of a gateway's state. `details`: with everything that is known of the models."""
    first = pages[0]
    models = [model for page in pages for model in page.models]
    rows = tuple(row for model in models for row in _model_rows(model))
    remarks = [remark for model in models for remark in _model_remarks(model)]
    if details:
        remarks += [line for model in models for line in _details(model)]
    left = first.models_matching - len(models)
    if left > 0:
        remarks.append(f"... and {left} more models")
    slots = tuple(_slot_row(slot) for slot in first.slots)
    slot_remarks = [f"slot {slot.slot}: {slot.reason}" for slot in first.slots if slot.reason]
    return StatusText(tuple(_headlines(first)), slots, rows, (*slot_remarks, *remarks))


def unmatched_text(page: pb.StatusResponse) -> str:
    """Return what was asked for and is not there, '' where all is."""
    found = []
    for each in page.unmatched:
        wild = set(each.pattern) & set("*?[")
        found.append(f'no model {"matches " if wild else ""}"{each.pattern}"{each.hint}')
    return "; ".join(found)


def _headlines(page: pb.StatusResponse) -> Iterator[str]:
    gateway, configuration = page.gateway, page.configuration
    up = show_duration(gateway.uptime_seconds)
    yield (
        f"{gateway.name} on {gateway.node}: {gateway.state}, up {up}, crossgate {gateway.release}, "
        f"pid {gateway.pid}, {gateway.frontend} front end"
    )
    if gateway.reasons and gateway.state != "draining":
        yield f"not ready: {listed(gateway.reasons)}"
    yield ", ".join(f"{name} {address}" for name, address in sorted(gateway.addresses.items()))
    if configuration.applied_revision == configuration.desired_revision:
        revision = f"revision {configuration.desired_revision} in force"
    else:
        revision = (
            f"revision {configuration.desired_revision}, {configuration.applied_revision} in force everywhere"
        )
    yield f"configuration: {configuration.source}, {revision}"
    if configuration.away:
        stored = ", from the last good state on disk" if configuration.from_disk else ""
        since = show_duration(configuration.away_seconds)
        yield f"its source is away for {since}{stored}: {configuration.away}"
    for what, problem in sorted(configuration.problems.items()):
        yield f"problem: {what}: {problem}"
    if configuration.problems_left_off:
        yield f"... and {configuration.problems_left_off} more problems"
    for note in gateway.notes:
        yield f"note: {note}"
    if gateway.notes_left_off:
        yield f"... and {gateway.notes_left_off} more notes"
    if gateway.models_by_state:
        counts = sorted(gateway.models_by_state.items(), key=lambda item: -item[1])
        models = ", ".join(f"{count} {state}" for state, count in counts)
        yield f"models: {models}; requests in flight: {gateway.in_flight}"
    unknown = gateway.unknown_models
    if unknown.requests_per_second:
        yield f"{figures.rate(unknown.requests_per_second)} requests/s for models that do not exist"


def listed(texts: Sequence[str], most: int = 5) -> str:
    """Return texts on one line, at most so many of them."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def _slot_row(slot: pb.SlotStatus) -> tuple[str, ...]:
    use = 100 * slot.utilisation if slot.HasField("utilisation") else None
    memory = figures.size(slot.memory_bytes)
    if slot.HasField("memory_limit_bytes"):
        memory += f" of {figures.size(slot.memory_limit_bytes)}"
    return (
        slot.slot,
        slot.device,
        slot.node,
        slot.state,
        figures.percent(use),
        f"{slot.batches_in_flight}/{slot.capacity}",
        str(slot.restarts),
        memory,
    )


def _model_rows(model: pb.ModelStatus) -> Iterator[tuple[str, ...]]:
    if not model.versions:
        yield (model.model, "-", "UNAVAILABLE", *[""] * (len(MODEL_HEADER) - 3))
    for version in model.versions:
        live = version.figures
        split = model.split.get(version.version)
        yield (
            model.model,
            version.version,
            version.state,
            figures.percent(split),
            figures.rate(live.requests_per_second),
            figures.rate(live.errors_per_second),
            str(version.queue_depth),
            figures.number(live.mean_batch_size if live.HasField("mean_batch_size") else None),
            figures.seconds(live.p50_seconds if live.HasField("p50_seconds") else None),
            figures.seconds(live.p99_seconds if live.HasField("p99_seconds") else None),
        )


def _model_remarks(model: pb.ModelStatus) -> Iterator[str]:
    name = model.model
    if model.problem:
        yield f"{name}: its document is not valid: {model.problem}"
    if model.waits:
        yield f"{name}: revision {model.revision} waits for {listed(model.waits)}"
    for version in model.versions:
        if version.reason:
            yield f"{name}/{version.version}: {version.reason}"
    if model.versions_left_off:
        yield f"{name}: {model.versions_left_off} more versions"
    if model.refused.requests_per_second:
        window = round(model.refused.window_seconds)
        count = round(model.refused.requests_per_second * model.refused.window_seconds)
        yield f"{name}: {count} requests were refused in the last {window} s, before they were queued"


def _details(model: pb.ModelStatus) -> Iterator[str]:
    routing = [f"revision {model.revision}", f"routing of revision {model.applied}" if model.applied else ""]
    routing.append(f"load {model.load_mode}" if model.load_mode else "")
    routing += [f"label {label} is {version}" for label, version in sorted(model.labels.items())]
    routing.append(f"{model.rules} rules" if model.rules else "")
    routing.append(f"sticky by {model.sticky}" if model.sticky else "")
    yield f"{model.model}: " + ", ".join(filter(None, routing))
    for version in model.versions:
        yield f"{model.model}/{version.version}: " + ", ".join(_version_details(version))


def _version_details(version: pb.VersionStatus) -> Iterator[str]:
    for instance in version.instances:
        runs = f"{instance.count} at once" if instance.count > 1 else "one at a time"
        yield f"{instance.runtime} on {instance.slot} {instance.state}, {runs}"
    if version.HasField("batchable"):
        why = f" ({version.why_not_batchable})" if version.why_not_batchable else ""
        yield "batchable" if version.batchable else f"not batchable{why}"
        yield f"{figures.size(version.memory_bytes)} loaded in {figures.seconds(version.load_seconds)}"
        yield f"{version.in_flight} requests in flight"
    outcomes = sorted(version.figures.outcomes_total.items(), key=lambda item: -item[1])
    yield "so far " + (", ".join(f"{count} {outcome}" for outcome, count in outcomes) or "no request")
