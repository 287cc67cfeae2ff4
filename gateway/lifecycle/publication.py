"""The routing table of the present state, and how far it is what documents ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.lifecycle.routes import build_route
from gateway.routing.table import ModelRoute, RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.clock import Clock
    from gateway.dataplane import Dataplane
    from gateway.lifecycle.routes import ServedModel
    from gateway.telemetry.accounts import Accounts


class Publication:
    """`on_change` is called after every change of what is served, with the models that it may be about."""

    def __init__(
        self,
        clock: Clock,
        dataplane: Dataplane,
        accounts: Accounts,
        on_change: Callable[[Collection[str]], None],
    ) -> None:
        self.applied_revision = 0  # the last at which every model's routing was its document's
        self.routes: dict[str, ModelRoute] = {}  # {model: route}, of the next table
        self._clock = clock
        self._dataplane = dataplane
        self._accounts = accounts
        self._on_change = on_change
        self._unapplied: set[str] = set()  # models whose routing is not their document's
        self._observed_ns: int | None = None

    def begin(self) -> None:
        """Something new is desired: how long it takes counts from now on."""
        self._observed_ns = self._clock.now_ns()

    def refresh(self, served: ServedModel) -> None:
        """Work out a model's route from its records."""
        name, model = served.model, served.desired
        self.routes[name] = build_route(served)
        applied = model is None or served.routing is model.document
        (self._unapplied.discard if applied else self._unapplied.add)(name)

    def remove(self, name: str) -> None:
        """A model is gone."""
        self.routes.pop(name, None)
        self._unapplied.discard(name)

    def publish(self, models: Collection[str], revision: int, *, complete: bool) -> None:
        """Swap the routing table. `complete`: nothing that is desired at this revision was left out."""
        self._dataplane.table = RouteTable(dict(self.routes))
        if complete and not self._unapplied:
            self.applied_revision = revision
            if self._observed_ns is not None:
                self._accounts.config_apply_seconds.observe(self._clock.now_ns() - self._observed_ns)
                self._observed_ns = None
        self._on_change(models)
