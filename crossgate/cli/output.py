"""How results are printed: tables on a terminal, plain columns elsewhere, JSON on request."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence


def fail(message: str) -> NoReturn:
    """Print an error and exit with status 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def rows(header: Sequence[str], table: Sequence[Sequence[str]], *, as_json: bool = False) -> None:
    """Print a table of texts."""
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in table], indent=2))
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        pretty = Table(*header, header_style="bold")
        for row in table:
            pretty.add_row(*[cell.replace("[", "\\[") for cell in row])
        Console().print(pretty)
        return
    widths = [max([len(title), *(len(row[i]) for row in table)]) for i, title in enumerate(header)]
    for row in (header, *table):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
