"""Commands that change and show what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossgate.cli import documents_contexts
from crossgate.cli.documents_apply import apply, diff
from crossgate.cli.documents_change import delete, set_fields
from crossgate.cli.documents_edit import edit
from crossgate.cli.documents_freeze import freeze, unfreeze
from crossgate.cli.documents_options import PANEL
from crossgate.cli.documents_rollback import revert, rollback
from crossgate.cli.documents_show import get, history, show
from crossgate.cli.documents_sync import export, import_, sync

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer


def register(app: typer.Typer) -> None:
    """Add these commands."""
    commands: dict[str, Callable[..., None]] = {  # {name: command}, in the order of the help
        "get": get,
        "apply": apply,
        "diff": diff,
        "edit": edit,
        "set": set_fields,
        "delete": delete,
        "history": history,
        "show": show,
        "rollback": rollback,
        "revert": revert,
        "freeze": freeze,
        "unfreeze": unfreeze,
        "sync": sync,
        "export": export,
        "import": import_,
    }
    for name, command in commands.items():
        app.command(name, rich_help_panel=PANEL)(command)
    app.add_typer(documents_contexts.app, name="context", rich_help_panel=PANEL)
