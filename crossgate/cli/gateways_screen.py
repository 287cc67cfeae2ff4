"""Status on a terminal, of 80 columns or more, and in plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from crossgate.cli import output
from crossgate.cli.gateways_status import MODEL_HEADER, SLOT_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group, JustifyMethod
    from rich.table import Table

    from crossgate.cli.gateways_status import StatusText

_LEFT = ("model", "version", "state", "slot", "device", "node")
_CUT = ("model", "slot", "device")
_NARROWEST = 6
_STYLES = {"READY": "green", "LOADING": "yellow", "UNLOADING": "yellow", "UNAVAILABLE": "red",
           "up": "green", "down": "red"}  # fmt: skip


def print_status(status: StatusText) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(screen(status, console.width))
        return
    for line in status.headlines:
        print(line)
    print()
    output.rows(SLOT_HEADER, status.slots)
    output.rows(MODEL_HEADER, status.models)
    for line in status.remarks:
        print(line)


def screen(status: StatusText, width: int) -> Group:
    """Return what fits a terminal of this width, from 80 on: long names are cut, and nodes left out where
    there is but one.
    """
    from rich.console import Group
    from rich.text import Text

    headlines = [Text(line, style="bold" if i == 0 else "") for i, line in enumerate(status.headlines)]
    hidden = {"node"} if len({row[SLOT_HEADER.index("node")] for row in status.slots}) < 2 else set()
    parts: list[Text | Table] = [*headlines, Text(), _table(SLOT_HEADER, status.slots, hidden, width), Text()]
    if status.models:
        parts.append(_table(MODEL_HEADER, status.models, set(), width))
    remarks = [Text(line) for line in status.remarks]
    return Group(*parts, *([Text(), *remarks] if remarks else []))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], hidden: set[str], width: int) -> Table:
    """Names are cut where the rest leaves them no room; numbers never are."""
    from rich.table import Table
    from rich.text import Text

    shown = [i for i, title in enumerate(header) if title not in hidden]
    widest = {i: max([len(header[i]), *(len(row[i]) for row in rows)]) for i in shown}
    names = [i for i in shown if header[i] in _CUT]
    room = width - sum(widest[i] for i in shown if i not in names) - len(shown)
    for i in sorted(names, key=lambda i: widest[i]):  # what a short name leaves is for longer ones
        widest[i] = max(min(widest[i], room // len(names)), _NARROWEST)
        room -= widest[i]
        names.remove(i)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for i in shown:
        justify: JustifyMethod = "left" if header[i] in _LEFT else "right"
        table.add_column(header[i], justify=justify, no_wrap=True, overflow="ellipsis", width=widest[i])
    for row in rows:
        table.add_row(*[Text(row[i], style=_STYLES.get(row[i], "")) for i in shown])
    return table
