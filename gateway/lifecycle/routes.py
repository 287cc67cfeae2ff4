"""From a model's records to its route. Routing switches as one unit when every version it names is ready."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.routing.table import NO_WAITS, ModelRoute, Waits, resolve_split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.document import ModelDocument
    from gateway.lifecycle.desired import DesiredModel
    from gateway.lifecycle.record import VersionRecord
    from gateway.servable import Servable

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class ServedModel:
    """What the reconciler knows of one model. `routing` is the document whose routing part is in force, and
    `routing_revision` its revision. Of a model that is loaded on demand, `awake` are the versions that were
    asked for.
    """

    model: str
    desired: DesiredModel | None = None
    wanted: dict[str, str] = field(default_factory=dict)  # {version: key}
    records: dict[str, VersionRecord] = field(default_factory=dict)  # {key: record}
    routing: ModelDocument | None = None
    routing_revision: int = 0
    problem: str = ""
    awake: frozenset[str] = frozenset()

    @property
    def on_demand(self) -> bool:
        return self.desired is not None and self.desired.document.load.mode == "on_demand"

    def declared(self) -> frozenset[str]:
        """Return the versions of a model that is loaded on demand, whether they are loaded or not."""
        if self.desired is None or not self.on_demand:
            return frozenset()
        model = self.desired
        wanted = model.document.wanted_versions(model.versions)
        return _shared(frozenset(version for version in wanted if version in model.versions))

    def about(self, record: VersionRecord) -> dict[str, object]:
        """Return what a log line says of a version beside its text."""
        revision = self.desired.revision if self.desired is not None else 0
        return {"model": record.model, "version": record.version, "revision": revision}

    def current(self) -> dict[str, VersionRecord]:
        """Return {version: record}, the wanted or else the newest ready one where a version is loaded
        twice.
        """
        found: dict[str, VersionRecord] = {}
        for record in self.records.values():
            other = found.get(record.version)
            if other is None or self._better(record, other):
                found[record.version] = record
        return found

    def _better(self, record: VersionRecord, other: VersionRecord) -> bool:
        def rank(each: VersionRecord) -> tuple[bool, bool, bool]:
            return (each.servable is not None, not each.draining, self.wanted.get(each.version) == each.key)

        return rank(record) >= rank(other)


def build_route(served: ServedModel) -> ModelRoute:
    """Return the route of a model as its versions stand now; switches `served.routing` when that has become
    possible.
    """
    current = served.current()
    ready: dict[str, Servable] = {
        version: record.servable
        for version, record in current.items()
        if record.servable is not None and not record.draining
    }
    waiting = {version: record.why_not_ready for version, record in current.items() if version not in ready}
    asleep = _shared(
        frozenset(v for v in served.declared() if v not in ready and not _is_hopeless(current.get(v)))
    )
    if served.desired is not None:
        document = served.desired.document
        if served.routing is not document and document.named_versions() <= {*ready, *asleep}:
            served.routing = document
        if served.routing is document:
            served.routing_revision = served.desired.revision
    problem = served.problem if not current else ""
    # a label that waits for its version is known: whoever asks for it is told to try again
    declared = served.desired.document.labels if served.desired is not None else {}
    routing = served.routing
    pending = {
        label: version for label, version in declared.items() if routing is None or version not in ready
    }
    waits = _waits(served.desired.document) if served.desired is not None else NO_WAITS
    revision = served.desired.revision if served.desired is not None else 0
    if routing is None:
        missing = served.desired.document.named_versions() - ready.keys() if served.desired else frozenset()
        for version in missing - waiting.keys() - asleep:
            waiting[version] = "it does not exist yet"
        return ModelRoute(
            served.model,
            revision,
            ready,
            waiting,
            pending,
            problem=problem,
            asleep=asleep,
            waits=waits,
        )
    labels = {**pending, **routing.labels} if pending.keys() - routing.labels.keys() else routing.labels
    return ModelRoute(
        served.model,
        revision,
        ready or NOTHING,
        waiting or NOTHING,
        labels,
        tuple((rule.when.metadata, labels.get(rule.to, rule.to)) for rule in routing.traffic.rules),
        resolve_split(routing.traffic, labels, [*ready, *asleep]),
        routing.traffic.sticky.metadata if routing.traffic.sticky else None,
        problem,
        asleep,
        waits,
    )


def _waits(document: ModelDocument) -> Waits:
    default_ms = document.deadline.default_ms
    return _same_waits(
        document.batching.max_queue_size,
        document.limits.max_request_bytes,
        default_ms * 1_000_000 if default_ms else None,
    )


@functools.lru_cache(maxsize=1024)
def _same_waits(most: int, max_request_bytes: int | None, default_deadline_ns: int | None) -> Waits:
    return Waits(most, max_request_bytes, default_deadline_ns)


@functools.lru_cache(maxsize=1024)
def _shared(versions: frozenset[str]) -> frozenset[str]:
    """Return one object for equal sets: thousands of declared models have the same few versions."""
    return versions


def _is_hopeless(record: VersionRecord | None) -> bool:
    return record is not None and record.hopeless
