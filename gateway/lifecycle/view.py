"""What the policy sees of a model: which versions are wanted, and how far each is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.lifecycle.loading import spec_key
from gateway.lifecycle.policy import InstanceView, ModelView, VersionView
from gateway.lifecycle.record import InstanceState, VersionState

if TYPE_CHECKING:
    from collections.abc import Container

    from gateway.config.document import ModelDocument
    from gateway.lifecycle.desired import DesiredModel
    from gateway.lifecycle.routes import ServedModel


def view_of(served: ServedModel, slots_up: Container[str]) -> ModelView:
    """Return a model as it stands now."""
    return ModelView(
        wanted=served.wanted if served.desired is not None else {},
        versions=tuple(
            VersionView(
                key=record.key,
                version=record.version,
                instances=tuple(
                    InstanceView(slot, instance.state, slot in slots_up, instance.retry_ns)
                    for slot, instance in record.instances.items()
                ),
                ready=record.servable is not None,
                draining=record.draining,
                busy=record.servable is not None and record.servable.busy,
                drain_until_ns=record.drain_until_ns,
                blocked_until_ns=record.quarantined_until_ns,
                # before it is known where it runs, nothing is fetched
                fetch=InstanceState.READY if record.unplaced else record.fetch,
                fetch_retry_ns=record.fetch_retry_ns,
                leaving=record.leaving,
            )
            for record in served.records.values()
        ),
    )


def wanted_versions(served: ServedModel, model: DesiredModel) -> list[str]:
    """Return the versions that are to be loaded, ascending by number."""
    if served.on_demand:
        return sorted(served.declared() & served.awake, key=int)
    document = model.document
    wanted = set(document.wanted_versions(model.versions))
    # a version that cannot be loaded does not count as found: the one before it stands in, also after a
    # restart
    broken = {
        record.version
        for record in served.records.values()
        if record.state is VersionState.FAILED and record.key == _key_of(document, model, record.version)
    }
    if broken:
        wanted |= set(document.wanted_versions(model.versions.keys() - broken))
    return sorted(wanted & model.versions.keys(), key=int)


def _key_of(document: ModelDocument, model: DesiredModel, version: str) -> str:
    source = model.versions.get(version)
    return spec_key(document, source) if source is not None else ""
