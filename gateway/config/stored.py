"""A document as a store has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gateway.config.kinds import DocumentName
    from gateway.config.store.store import Entry


@dataclass(frozen=True, slots=True)
class Stored:
    """`data` is None where the value is no JSON mapping, and `problem` then says so: somebody wrote it past
    the ledger.
    """

    name: DocumentName
    data: dict[str, Any] | None
    revision: int
    problem: str = ""


def read_stored(name: DocumentName, entry: Entry) -> Stored:
    try:
        data = msgspec.json.decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Stored(name, None, entry.revision, f"the value of {entry.key} is not JSON: {error}")
    except RecursionError:
        return Stored(name, None, entry.revision, f"the value of {entry.key} is nested too deeply")
    if not isinstance(data, dict):
        return Stored(name, None, entry.revision, f"the value of {entry.key} is no mapping")
    return Stored(name, data, entry.revision)
