"""Whether every change that the ledger says was made stands in the history, once."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stored_state import StoredState

    from gateway.config.change import Committed


def flaws_of_history(committed: Sequence[Committed], state: StoredState) -> list[str]:
    """What was lost, made twice or left out, of generations that count up from 1."""
    found = []
    changes: dict[tuple[str, int], str] = {}  # {(model, generation): change}
    for key, held in state.folder("history").items():
        model = key.partition("/")[0]
        entry = json.loads(held.value)
        changes[model, entry["generation"]] = entry["change"] if entry["action"] != "found" else ""
    made = Counter((model, change) for (model, _), change in changes.items() if change)
    for (model, change), times in made.items():
        if times > 1:
            found.append(f"change {change} of {model} was made {times} times")
    for model in {model for model, _ in changes}:
        generations = sorted(generation for of, generation in changes if of == model)
        if generations != list(range(1, len(generations) + 1)):
            found.append(f"the generations of {model} have a gap")
    for each in committed:
        for name, generation in each.generations.items():
            if changes.get((str(name), generation)) != each.change:
                found.append(f"change {each.change} of {name} is lost")
    return found
