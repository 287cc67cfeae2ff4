"""What became of configuration under one fault, and a table of several."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "CROSSGATE_FAULT_REPORT"  # the path of the Markdown file that is wanted
_COLUMNS = (
    "fault",
    "changes: made / unclear / refused / store away",
    "requests answered",
    "failed",
    "model not there, as stored",
    "revisions seen",
    "again or backwards",
    "converged after, s",
    "differences from etcd",
)


@dataclass(frozen=True)
class Row:
    """`converged_s` counts from the end of the fault, None: not within the limit. `failed` and `flaws` are to
    be empty; `flaws` are what gateways and etcd do not agree about, and what the ledger lost or did twice.
    """

    fault: str
    seed: int
    made: int
    unclear: int
    refused: int
    away: int
    answered: int
    not_there: int
    revisions_seen: int
    backwards: int
    failed: tuple[str, ...]
    converged_s: float | None
    flaws: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not self.failed and not self.flaws and not self.backwards and self.converged_s is not None

    def cells(self) -> tuple[str, ...]:
        return (
            self.fault,
            f"{self.made} / {self.unclear} / {self.refused} / {self.away}",
            f"{self.answered:,}",
            str(len(self.failed)),
            f"{self.not_there:,}",
            f"{self.revisions_seen:,}",
            str(self.backwards),
            "never" if self.converged_s is None else f"{self.converged_s:.2f}",
            "none" if not self.flaws else f"{len(self.flaws)}",
        )


def to_markdown(rows: Sequence[Row]) -> str:
    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|--:" * (len(_COLUMNS) - 1) + "|",
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
    ]
    told = [f"- {row.fault}: {text}" for row in rows for text in (*row.failed[:5], *row.flaws[:5])]
    return "\n".join([*lines, *(["", *told] if told else []), ""])


def publish(rows: Sequence[Row]) -> None:
    """Print the table; append it to the file that is asked for."""
    text = to_markdown(rows)
    print(f"\n{text}")
    if path := os.environ.get(VARIABLE):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as out:
            out.write(f"Seed {', '.join(sorted({str(row.seed) for row in rows}))}\n\n{text}\n")
