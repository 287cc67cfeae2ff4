"""From a model's records to its route. Routing switches as one unit when every version it names is ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.routing.table import ModelRoute, resolve_split

if TYPE_CHECKING:
    from gateway.config.document import ModelDocument
    from gateway.lifecycle.desired import DesiredModel
    from gateway.lifecycle.record import VersionRecord
    from gateway.servable import Servable


@dataclass
class ServedModel:
    """What the reconciler knows of one model. `routing` is the document whose routing part is in force."""

    model: str
    desired: DesiredModel | None = None
    wanted: dict[str, str] = field(default_factory=dict)  # {version: key}
    records: dict[str, VersionRecord] = field(default_factory=dict)  # {key: record}
    routing: ModelDocument | None = None
    problem: str = ""

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
    if served.desired is not None:
        document = served.desired.document
        if served.routing is not document and document.named_versions() <= ready.keys():
            served.routing = document
    problem = served.problem if not current else ""
    # a label that waits for its version is known: whoever asks for it is told to try again
    declared = served.desired.document.labels if served.desired is not None else {}
    routing = served.routing
    pending = {
        label: version for label, version in declared.items() if routing is None or version not in ready
    }
    revision = served.desired.revision if served.desired is not None else 0
    if routing is None:
        missing = served.desired.document.named_versions() - ready.keys() if served.desired else frozenset()
        for version in missing - waiting.keys():
            waiting[version] = "it does not exist yet"
        return ModelRoute(served.model, revision, ready, waiting, pending, problem=problem)
    labels = {**pending, **routing.labels}
    return ModelRoute(
        served.model,
        revision,
        ready,
        waiting,
        labels,
        tuple((rule.when.metadata, labels.get(rule.to, rule.to)) for rule in routing.traffic.rules),
        resolve_split(routing.traffic, labels, list(ready)),
        routing.traffic.sticky.metadata if routing.traffic.sticky else None,
        problem,
    )
