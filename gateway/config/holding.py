"""What a store holds, as a ledger reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config.history import Recorded, read_recorded
from gateway.config.keys import ACCESS, CONFIGURATION, overrides_of
from gateway.config.kinds import DocumentName, name_of_key
from gateway.config.standing import InForce, Standing, in_force
from gateway.config.store.store import StoreRefused
from gateway.config.stored import Stored, read_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.store.store import Entry, Store


@dataclass(frozen=True, slots=True)
class Holding:
    """Everything that operators wrote. `unknown` are keys that hold no document of a known kind."""

    revision: int
    documents: Mapping[DocumentName, Stored]
    overrides: Mapping[str, tuple[InForce, ...]]  # {model: in the order in which they fold}
    unknown: tuple[str, ...] = ()


async def read_holding(store: Store) -> Holding:
    """Models, overrides and the gateway's document are of one revision. Raises StoreError."""
    configuration = await store.read(CONFIGURATION)
    access = await store.read(ACCESS)
    documents: dict[DocumentName, Stored] = {}
    overrides: dict[str, list[Entry]] = {}
    unknown: list[str] = []
    for entry in (*configuration.entries, *access.entries):
        folder, _, rest = entry.key.partition("/")
        if folder == "overrides":
            overrides.setdefault(rest.partition("/")[0], []).append(entry)
        elif (name := name_of_key(entry.key)) is not None:
            documents[name] = read_stored(name, entry)
        elif folder != "rollouts":
            unknown.append(entry.key)
    folded = {model: in_force(entries) for model, entries in overrides.items()}
    return Holding(configuration.revision, documents, folded, tuple(unknown))


async def read_document(store: Store, name: DocumentName) -> Stored | None:
    """Raises StoreError."""
    entry = await store.get(name.key)
    return read_stored(name, entry) if entry is not None else None


async def read_history(store: Store, name: DocumentName) -> tuple[Recorded, ...]:
    """Every generation that is kept, ascending. Raises StoreError."""
    found = await store.read(name.history)
    recorded = [recorded for entry in found.entries if (recorded := read_recorded(entry)) is not None]
    return tuple(sorted(recorded, key=lambda each: each.entry.generation))


async def read_standing(store: Store, name: DocumentName) -> Standing:
    """The parts may be of different revisions: a draft expects them as they were read. Raises StoreError."""
    stored = await read_document(store, name)
    last = next(iter((await store.read(name.history, last=1)).entries), None)
    overrides: tuple[InForce, ...] = ()
    if name.kind == "model":
        overrides = in_force((await store.read(overrides_of(name.name))).entries)
    if last is None:
        return Standing(name, stored, overrides=overrides)
    return Standing(name, stored, _generation_of(last), read_recorded(last), overrides)


def _generation_of(entry: Entry) -> int:
    number = entry.key.rpartition("/")[2]
    if not (number.isascii() and number.isdecimal()):
        raise StoreRefused(f"{entry.key} is no generation of a history; a ledger did not write it: delete it")
    return int(number)
