"""What all scenarios of configuration are given, and how they write documents."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bench.configuration_changes import Change
from gateway.config.change import DocumentChange
from gateway.config.keys import status_key
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.status import ModelReport
from gateway.config.transaction import Author

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.peers.server import Placement
    from gateway.config.store.store import Store

AUTHOR = Author("bench", "measured")
PROBE_INTERVAL_MS = 1.0


@dataclass(frozen=True)
class Setting:
    """`seconds` is the length of a round; an outage is six times as long."""

    folder: Path
    placement: Placement
    seconds: float
    rounds: int
    changes: int
    declared: int
    seed: int
    say: Callable[[str], None]


@dataclass
class Operator:
    """Changes one model's document through the ledger, and remembers when."""

    store: Store
    model: str
    changes: list[Change] = field(default_factory=list)

    async def write(self, kind: str, document: dict[str, Any]) -> Change:
        """Raises StoreError."""
        ledger, name = Ledger(self.store), model_name(self.model)
        base = await ledger.read(name)
        committed = await ledger.commit([DocumentChange(name, document, base, "apply")], AUTHOR)
        split = document["traffic"]["split"]
        change = Change(kind, committed.revision, time.monotonic_ns(), split)
        self.changes.append(change)
        return change

    async def reported(self, gateway: str) -> ModelReport | None:
        """What a gateway has told the store about the model."""
        entry = await self.store.get(status_key(gateway, self.model))
        return None if entry is None else msgspec.json.decode(entry.value, type=ModelReport)
