"""`edit`: a document in the operator's editor, as often as it takes; what was typed is never lost."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossgate.cli.documents_awaiting import await_applied, awaited, effects
from crossgate.cli.documents_options import (
    By,
    ContextName,
    OneDocument,
    StoreUrl,
    TimeoutS,
    Wait,
    Why,
    author,
)
from crossgate.cli.documents_print import print_committed, print_differences
from crossgate.cli.documents_session import CONFLICT, FAILED, CommandFailed, Session, known, run
from gateway.config.change import DocumentChange
from gateway.config.difference import same
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.files import read_text
from gateway.config.kinds import GATEWAY, parse_name, type_of
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.refusal import ChangeRefused
from gateway.config.wording import shown
from gateway.config.yaml12 import parse_yaml
from gateway.config.yaml_writer import write_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.config.kinds import DocumentName
    from gateway.config.stored import Stored

_HEAD = (
    "Lines that begin with # are left out: the document keeps no comments.",
    "Save it to change it; leave it as it is to change nothing.",
)


def edit(
    model: OneDocument,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    why: Why = "",
    by: By = "",
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Change a document in $VISUAL or $EDITOR. What is refused opens again, with the reasons on top.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed it meanwhile.
    """
    who = author(by, why)

    async def work(session: Session) -> None:
        name = parse_name(model)
        holding = await session.ledger.read_all()
        if name != GATEWAY:
            known(name, holding)
        editing = Editing(name, holding.documents.get(name))
        while (document := editing.open()) is not None:
            change = DocumentChange(name, document, editing.base, "edit")
            try:
                committed = await session.ledger.commit([change], who)
            except ChangeRefused as error:
                editing.refused(str(error).splitlines(), FAILED)
                continue
            except ChangedMeanwhile as error:
                editing.overtaken(error)
                continue
            except BaseException:
                editing.keep()
                raise
            editing.close()
            print_differences(str(name), editing.data, document)
            print_committed(committed, who)
            if wait:
                before, after = effects([change], holding)
                await await_applied(session, awaited(committed, before, after), timeout_s)
            return
        print(f"unchanged: {name}")

    run(store, context, work)


class Editing:
    """One document in an editor. The file stays where it is whenever what was typed was not written."""

    def __init__(
        self, name: DocumentName, base: Stored | None, editor: Callable[[Path], None] | None = None
    ) -> None:
        if base is not None and base.data is None:
            raise CommandFailed(base.problem)
        self.name = name
        self.base = base
        self._edit = editor or _edit_file
        self._body = write_yaml(self.data or {}, type_of(name.kind))
        self._remarks: tuple[str, ...] = ()
        self._status = FAILED
        descriptor, path = tempfile.mkstemp(prefix=f"crossgate-{name.name}-", suffix=".yaml")
        os.close(descriptor)
        self._path = Path(path)

    @property
    def data(self) -> dict[str, Any] | None:
        return self.base.data if self.base is not None else None

    def open(self) -> dict[str, Any] | None:
        """Return the document as it was saved, None where nothing of it was changed.

        Raises CommandFailed where the editor fails, or what was refused is saved again as it was.
        """
        while True:
            text = self._text()
            self._path.write_text(text, encoding="utf-8")
            try:
                self._edit(self._path)
                saved = read_text(self._path)
                if saved == text and self._remarks:
                    remarks = "\n".join(self._remarks)
                    raise CommandFailed(f"saved as it was, so nothing was written:\n{remarks}", self._status)
                document = parse_yaml(saved)
                if not isinstance(document, dict):
                    raise DocumentInvalid([Problem("", f"expected a mapping, got {shown(document)}")])
            except DocumentInvalid as error:
                self._body = _without_remarks(saved)
                self.refused(str(error).splitlines(), FAILED)
                continue
            except (CommandFailed, OSError) as error:
                self.keep()
                raise CommandFailed(str(error), getattr(error, "status", FAILED)) from error
            self._body = _without_remarks(saved)
            if same(document, self.data or {}):
                self.close()
                return None
            return document

    def refused(self, reasons: Sequence[str], status: int) -> None:
        """Show the reasons when it is opened again."""
        self._remarks = tuple(reasons)
        self._status = status

    def overtaken(self, error: ChangedMeanwhile) -> None:
        """Go on from what somebody else wrote meanwhile, with our changes on top where they go together."""
        (meanwhile,) = error.documents
        merged = meanwhile.merge
        if not merged.overlaps and merged.document is not None:
            self._body = write_yaml(merged.document, type_of(self.name.kind))
        self.base = meanwhile.theirs
        end = (
            "Both changes are below." if not merged.overlaps else "Below is yours; saving it replaces theirs."
        )
        self.refused([*str(error).splitlines(), end], CONFLICT)

    def keep(self) -> None:
        """Say where what was typed is."""
        if self._path.exists():
            import typer

            typer.echo(f"what you typed is in {self._path}", err=True)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)

    def _text(self) -> str:
        remarks = [f"# ! {remark}" for remark in self._remarks]
        return "\n".join([*(f"# {line}" for line in (str(self.name), *_HEAD)), *remarks, self._body])


def _without_remarks(text: str) -> str:
    """What the operator typed, without the lines that we put above it."""
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[first:])


def _edit_file(path: Path) -> None:
    """Raises CommandFailed."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        status = subprocess.run([*shlex.split(command), str(path)], check=False).returncode
    except (OSError, ValueError) as error:
        raise CommandFailed(f"the editor {command!r} cannot be started: {error}; set EDITOR") from error
    if status:
        raise CommandFailed(f"the editor {command!r} ended with status {status}; nothing was written")
