"""What is known of one model, as a message."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from gateway.admin.figures import figures_of
from gateway.lifecycle.record import InstanceState, VersionState
from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.recent import Recent
    from gateway.lifecycle.record import VersionRecord
    from gateway.lifecycle.routes import ServedModel
    from gateway.routing.table import ModelRoute
    from gateway.telemetry.account import VersionAccount

# Of a model, so that no message grows beyond what a client takes.
_MAX_VERSIONS: Final = 200
_MAX_LABELS: Final = 500
_MAX_TEXT: Final = 1024
_BEST_FIRST: Final = ("READY", "LOADING", "UNAVAILABLE", "UNLOADING")

Accounts = dict[tuple[str, str], "VersionAccount"]  # {(model, version): account}


def model_status(
    served: ServedModel,
    route: ModelRoute | None,
    devices: Mapping[str, str],
    accounts: Accounts,
    recent: Recent,
    now_ns: int,
) -> pb.ModelStatus:
    """Return everything about a model. `devices` is {slot: device}."""
    message = pb.ModelStatus(
        model=served.model,
        revision=served.desired.revision if served.desired is not None else 0,
        applied=served.routing_revision,
        waits=[cut(reason) for reason in waits(served)],
        problem=cut(served.problem),
        load_mode=served.desired.document.load.mode if served.desired is not None else "",
    )
    if route is not None:
        _add_route(message, route)
    current = served.current()
    records = sorted(served.records.values(), key=lambda r: (int(r.version), current[r.version] is not r))
    for record in records[:_MAX_VERSIONS]:
        version = _version_status(record, devices)
        account = accounts.get((record.model, record.version))
        if account is not None and current[record.version] is record:
            version.figures.CopyFrom(figures_of(recent, now_ns, account))
        message.versions.append(version)
    declared = sorted(served.declared() - current.keys(), key=int)
    for name in declared[: _MAX_VERSIONS - len(message.versions)]:
        message.versions.add(version=name, state=VersionState.DECLARED.value)
    message.versions_left_off = len(records) + len(declared) - len(message.versions)
    refused = accounts.get((served.model, ""))
    if refused is not None:
        message.refused.CopyFrom(figures_of(recent, now_ns, refused))
    return message


def state_of(served: ServedModel) -> str:
    """Return the best state of a model's versions: READY when any of them is."""
    if not served.records:
        there = served.on_demand and served.desired is not None and served.desired.versions
        return str((VersionState.DECLARED if there else VersionState.FAILED).value)
    states = {record.state.value for record in served.records.values()}
    return next((state for state in _BEST_FIRST if state in states), min(states))


def waits(served: ServedModel) -> list[str]:
    """Return what keeps the routing of a model's document from being in force, nothing when it is."""
    if served.desired is None or served.routing is served.desired.document:
        return []
    current, declared = served.current(), served.declared()
    found = []
    for version in sorted(served.desired.document.named_versions(), key=int):
        record = current.get(version)
        if record is None and version not in declared:
            found.append(f"version {version}: it does not exist yet")
        elif record is not None and (record.servable is None or record.draining):
            found.append(f"version {version}: {record.why_not_ready or 'it drains'}")
    return found


def cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _add_route(message: pb.ModelStatus, route: ModelRoute) -> None:
    for label, version in islice(route.labels.items(), _MAX_LABELS):
        message.labels[label] = version
    total = sum(route.split.values())
    for version, weight in islice(route.split.items(), _MAX_VERSIONS):
        message.split[version] = 100 * weight / total
    message.rules = len(route.rules)
    message.sticky = route.sticky or ""


def _version_status(record: VersionRecord, devices: Mapping[str, str]) -> pb.VersionStatus:
    message = pb.VersionStatus(
        version=record.version,
        state=record.state.value,
        reason=cut(record.why_not_ready),
        load_seconds=record.load_ns / 1e9,
    )
    for slot, instance in record.instances.items():
        message.instances.add(
            slot=slot,
            device=devices.get(slot, ""),
            runtime=instance.placed.runtime,
            state=instance.state.value,
            reason=cut(instance.reason),
            count=instance.placed.count,
        )
        if instance.state is InstanceState.READY and slot in record.loaded:
            message.memory_bytes += max(record.loaded[slot].memory_bytes, 0)
    servable = record.servable
    if servable is not None:
        message.batchable = servable.batchable
        message.why_not_batchable = cut(servable.reason)
        message.queue_depth = servable.queues.size
        message.in_flight = max(servable.unsettled - servable.queues.size, 0)
    return message
