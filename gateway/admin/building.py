"""The admin service's view of a gateway, from the parts that a process is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.slots import slot_states
from gateway.admin.view import ConfigurationState, View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.admin.view import Identity
    from gateway.dataplane import Dataplane
    from gateway.lifecycle.catalog import Catalog
    from gateway.lifecycle.following import SourceState
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.recent import Recent as RecentRequests
    from gateway.workerpool.pool import Pool


def build_view(
    identity: Identity,
    reconciler: Reconciler,
    dataplane: Dataplane,
    pool: Pool,
    accounts: Accounts,
    catalog: Catalog,
    source: Callable[[], SourceState],
    addresses: Callable[[], Mapping[str, str]],
    recent: RecentRequests,
    notes: Callable[[], Sequence[str]] = tuple,
) -> View:
    """Return a view that follows these parts. `addresses` is {grpc, http, ...: where it listens}; `notes` say
    what is wrong beside models and configuration, such as pools that are not in use.
    """

    def configuration() -> ConfigurationState:
        state = source()
        return ConfigurationState(
            state.where,
            state.away,
            state.away_s,
            state.from_disk,
            reconciler.desired.revision,
            reconciler.applied_revision,
            state.heard_s,
            state.problems,
        )

    return View(
        identity,
        accounts,
        reconciler.served,
        lambda: dataplane.table,
        lambda: slot_states(pool, dataplane, identity.node),
        configuration,
        addresses,
        catalog.ready,
        lambda: catalog.draining,
        lambda: dataplane.unsettled,
        recent,
        notes,
    )
