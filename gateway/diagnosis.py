"""What `/readyz` and `status` say of a gateway: whether it is ready, and what is amiss all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.http.endpoints import Readiness
from gateway.lifecycle.following import SourceState

if TYPE_CHECKING:
    from gateway.lifecycle.catalog import Catalog
    from gateway.lifecycle.following import Following
    from gateway.membership import Membership


class Diagnosis:
    """The parts are set when they are there; without them nothing is said of them."""

    def __init__(self, catalog: Catalog) -> None:
        self.following: Following | None = None
        self.membership: Membership | None = None
        self._catalog = catalog

    def source(self) -> SourceState:
        """Return how it stands with the source of desired state."""
        return self.following.state if self.following is not None else SourceState("")

    def readiness(self) -> Readiness:
        state = self.source()
        notes = []
        if state.away:
            serving = "the last good state on disk" if state.from_disk else "what was heard last"
            notes.append(
                f"{state.where} has been away for {state.away_s:.0f} s: {state.away}; {serving} is served"
            )
        notes += [f"{what}: its document is not valid: {why}" for what, why in state.problems.items()]
        return Readiness(*self._catalog.ready(), [*notes, *self.notes()])

    def notes(self) -> list[str]:
        """Return what is wrong beside models and configuration."""
        if self.membership is None:
            return []
        notes = []
        where, discovery = self.membership.where, self.membership.discovery
        if discovery is not None:
            notes += [f"{key}: {problem}" for key, problem in discovery.problems.items()]
            if discovery.problem:
                notes.append(f"pools elsewhere are not followed in {where}: {discovery.problem}")
        if problem := self.membership.reporter.problem:
            notes.append(f"the state of this gateway is not in {where}: {problem}")
        return notes
