"""Observed state: what has become of each version on each slot.

an instance (a version on a slot)      a version
ABSENT → LOADING → READY               (DECLARED) → LOADING → READY → DRAINING → (gone)
   ↑        ↓                                         ↓  ↑ (an instance became ready after all)
   └──── FAILED (tried again at retry_ns)             FAILED
a lost worker takes any instance back to ABSENT

A version whose files are fetched first has no instances before they are here, nor has one that waits for
slots that are not known yet; a version that is only
declared, to be loaded on demand, has no record at all.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gateway.scheduling.decision import NEVER

if TYPE_CHECKING:
    from gateway.lifecycle.desired import DesiredVersion
    from gateway.lifecycle.loading import LoadedInstance
    from gateway.lifecycle.placement import Placed
    from gateway.servable import Servable


class InstanceState(enum.Enum):
    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class VersionState(enum.Enum):
    DECLARED = "DECLARED"
    LOADING = "LOADING"
    READY = "READY"
    FAILED = "UNAVAILABLE"
    DRAINING = "UNLOADING"


@dataclass
class InstanceRecord:
    """`retry_ns` is when a failed instance is tried again; NEVER where it cannot help."""

    placed: Placed
    state: InstanceState = InstanceState.ABSENT
    reason: str = ""
    retry_ns: int = NEVER
    servable_id: int = 0
    hopeful: bool = False  # it failed because its worker was lost, and who waits goes on waiting
    no_room_ns: int = NEVER  # since when it waits for memory on its slot


@dataclass
class VersionRecord:
    """One version of one model as loaded from one file with one spec. `key` is equal for equal specs.
    `fetch` says how far its files are, `leaving` that it makes room for another or has been idle for long.
    """

    model: str
    version: str
    key: str
    source: DesiredVersion
    instances: dict[str, InstanceRecord] = field(default_factory=dict)  # {slot name: instance}
    loaded: dict[str, LoadedInstance] = field(default_factory=dict)  # {slot name: what its worker found out}
    servable: Servable | None = None
    draining: bool = False
    drain_until_ns: int = NEVER
    reason: str = ""  # why it can never be placed, or is quarantined
    unplaced: str = ""  # why it is not placed yet, while not all slots are known
    quarantined_until_ns: int = 0
    load_ns: int = 0
    fetch: InstanceState = InstanceState.READY
    fetch_retry_ns: int = NEVER
    leaving: bool = False
    size_bytes: int = 0  # of its files: what loading it may take, before that is known
    ready_ns: int = 0  # when it became a servable

    def fetched(self, path: str, fingerprint: str) -> None:
        """Its files are here."""
        self.source = replace(self.source, path=path, fingerprint=fingerprint)

    @property
    def state(self) -> VersionState:
        if self.draining:
            return VersionState.DRAINING
        if self.servable is not None:
            return VersionState.READY
        if self.unplaced or self.fetch in (InstanceState.ABSENT, InstanceState.LOADING):
            return VersionState.LOADING
        if self.reason or all(i.state is InstanceState.FAILED for i in self.instances.values()):
            return VersionState.FAILED
        return VersionState.LOADING

    @property
    def hopeless(self) -> bool:
        """Whether there is no sense in waiting for it."""
        return self.state is VersionState.FAILED and not (
            self.leaving or (not self.reason and any(i.hopeful for i in self.instances.values()))
        )

    @property
    def why_not_ready(self) -> str:
        """The reason for anything but READY, '' when ready and complete."""
        if self.reason:
            return self.reason
        failed = [
            f"{i.placed.slot}: {i.reason}" for i in self.instances.values() if i.state is InstanceState.FAILED
        ]
        if failed:
            return "; ".join(failed)
        if self.servable is not None:
            return ""
        if self.unplaced:
            return self.unplaced
        if self.fetch is not InstanceState.READY:
            return "it is being fetched"
        absent = [i for i in self.instances.values() if i.state is InstanceState.ABSENT and i.reason]
        return "; ".join(f"{i.placed.slot}: {i.reason}" for i in absent) or "it is loading"
