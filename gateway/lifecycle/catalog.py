"""What is served, as those see it who ask about models rather than send to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from gateway.lifecycle.record import VersionState
from gateway.routing.table import ModelAsleep, ModelNotReady, UnknownModel, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.document import ModelDocument
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.servable import Servable

AWAKE_LIMIT_S = 60.0  # how long somebody who asks about a model waits for it to be loaded


class VersionStatus(NamedTuple):
    """`state` is READY, DECLARED, LOADING, UNLOADING or UNAVAILABLE; `reason` says why not READY, or what is
    missing of it.
    """

    version: str
    state: str
    reason: str

    @property
    def takes_requests(self) -> bool:
        """Whether a request would be answered, perhaps after it was loaded."""
        return self.state in (VersionState.READY.value, VersionState.DECLARED.value)


class Catalog:
    """Read-only. `changed` must be called whenever something may have changed; watchers are told."""

    def __init__(self, reconciler: Reconciler, draining: Callable[[], bool]) -> None:
        self._reconciler = reconciler
        self._draining = draining
        self._watchers: set[Callable[[], None]] = set()
        self._started = False

    @property
    def draining(self) -> bool:
        return self._draining()

    def changed(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        self._watchers.discard(watcher)

    def models(self) -> list[str]:
        return sorted(self._reconciler.served)

    def knows(self, model: str) -> bool:
        return model in self._reconciler.served

    def versions(self, model: str) -> list[VersionStatus]:
        """Return the versions of a model in ascending order, with their state.

        Raises:
            UnknownModel
        """
        served = self._reconciler.served.get(model)
        if served is None:
            raise UnknownModel(model, self.models())
        current = served.current()
        statuses = [
            VersionStatus(version, record.state.value, record.why_not_ready)
            if (record := current.get(version)) is not None
            else VersionStatus(
                version, VersionState.DECLARED.value, "it is loaded when a request asks for it"
            )
            for version in sorted(current.keys() | served.declared(), key=int)
        ]
        if served.problem:
            statuses.append(
                VersionStatus("", VersionState.FAILED.value, f"its document is not valid: {served.problem}")
            )
        elif not statuses:
            never = served.desired is not None and served.desired.document.load.mode == "never"
            reason = "its document says load.mode: never" if never else "it has no version that can be served"
            statuses.append(VersionStatus("", VersionState.FAILED.value, reason))
        return statuses

    def document(self, model: str) -> ModelDocument | None:
        served = self._reconciler.served.get(model)
        return served.desired.document if served is not None and served.desired is not None else None

    def servable(self, model: str, version: str = "") -> Servable:
        """Return a ready version; the latest ready one when none is named. Labels are names too.

        Raises:
            UnknownModel, UnknownVersion, ModelNotReady, ModelAsleep
        """
        served = self._reconciler.served.get(model)
        if served is None:
            raise UnknownModel(model, self.models())
        current = served.current()
        ready = {v: r.servable for v, r in current.items() if r.servable is not None and not r.draining}
        asleep = {v for v in served.declared() - ready.keys() if v not in current or not current[v].hopeless}
        if not version:
            latest = max({*ready, *asleep}, key=int, default="")
            if not latest:
                raise ModelNotReady(model, "", "; ".join(s.reason for s in self.versions(model)))
            version = latest
        declared = served.desired.document.labels if served.desired is not None else {}
        labels = {**declared, **(served.routing.labels if served.routing is not None else {})}
        version = labels.get(version, version)
        if version in ready:
            return ready[version]
        if version in asleep:
            raise ModelAsleep(model, version)
        if version in current:
            raise ModelNotReady(model, version, current[version].why_not_ready)
        raise UnknownVersion(model, version, sorted(current, key=int), sorted(labels))

    async def awake(self, model: str, version: str = "") -> Servable:
        """As `servable`; a version that is loaded on demand is loaded first, and waited for.

        Raises:
            UnknownModel, UnknownVersion, ModelNotReady
        """
        changed = asyncio.Event()
        self.watch(changed.set)
        try:
            async with asyncio.timeout(AWAKE_LIMIT_S):
                while True:
                    changed.clear()
                    try:
                        return self.servable(model, version)
                    except ModelAsleep as asleep:
                        self._reconciler.demand(asleep.model, asleep.version)
                    await changed.wait()
        except TimeoutError:
            raise ModelNotReady(model, version, f"it was not loaded within {AWAKE_LIMIT_S:.0f} s") from None
        finally:
            self.unwatch(changed.set)

    def memory_bytes(self, model: str, version: str) -> dict[str, int]:
        """Return {device: bytes that loading this version added to its worker}."""
        served = self._reconciler.served.get(model)
        record = served.current().get(version) if served is not None else None
        if record is None or record.servable is None:
            return {}
        return {
            hosting.slot.device: record.loaded[hosting.slot.name].memory_bytes
            for hosting in record.servable.hostings
        }

    def ready(self) -> tuple[bool, list[str]]:
        """Return whether the server may be sent requests, and what is missing.

        It is ready once every version that is there at the start has been loaded or has failed; those that
        come later do not make it unready. A model whose document says `required` counts always.
        """
        if self._draining():
            return False, ["draining"]
        if not self._reconciler.observed.is_set():
            return False, ["the models have not been read yet"]
        reasons = [reason for name in sorted(self._reconciler.notable) if (reason := self._missing(name))]
        self._started = self._started or not reasons
        return not reasons, reasons

    def _missing(self, model: str) -> str:
        """Return why a model keeps the server from being ready, '' when it does not."""
        document = self.document(model)
        statuses = self.versions(model)
        states = {status.state for status in statuses}
        ready = any(status.takes_requests for status in statuses)
        required = document is not None and document.required
        if self._started and (ready or not required):
            return ""
        if VersionState.LOADING.value in states:
            return f"{model} is loading"
        if model in self._reconciler.desired.settling:
            return f"{model} is being written"
        return f"{model} is required: {statuses[-1].reason}" if required and not ready else ""
