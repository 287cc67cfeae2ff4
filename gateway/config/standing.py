"""What a store holds of one document, as far as a change of it has to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.config.errors import DocumentInvalid
from gateway.config.override import Override, read_override
from gateway.config.patch import fold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.history import Recorded
    from gateway.config.kinds import DocumentName
    from gateway.config.store.store import Entry
    from gateway.config.stored import Stored


@dataclass(frozen=True, slots=True)
class InForce:
    """An override that the store holds."""

    id: str
    override: Override
    key: str
    revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`generation` is the number of the latest, 0 for none; `latest` is None where that cannot be read."""

    name: DocumentName
    stored: Stored | None
    generation: int = 0
    latest: Recorded | None = None
    overrides: tuple[InForce, ...] = ()  # in the order in which they fold

    @property
    def retired(self) -> Mapping[str, str]:
        """{version: digest} of versions that the document had once."""
        return self.latest.entry.retired if self.latest is not None else {}

    @property
    def effective(self) -> dict[str, Any] | None:
        """The document with its overrides folded in."""
        if self.stored is None or self.stored.data is None:
            return None
        return effective(self.stored.data, self.overrides)


def effective(document: dict[str, Any], overrides: Sequence[InForce]) -> dict[str, Any]:
    folded = fold(document, [each.override.patch for each in overrides])
    assert isinstance(folded, dict), "merge patches of a mapping are mappings"
    return folded


def in_force(entries: Sequence[Entry]) -> tuple[InForce, ...]:
    """The overrides among entries, in the order in which they fold. What is no override is left out, as
    gateways leave it out.
    """
    found: list[InForce] = []
    for entry in entries:
        try:
            override = read_override(entry.value)
        except DocumentInvalid:
            continue
        found.append(InForce(entry.key.rpartition("/")[2], override, entry.key, entry.revision, entry.lease))
    return tuple(sorted(found, key=lambda each: (each.revision, each.id)))
