"""`apply` and `diff`: documents of files into the store, as they are or as overrides."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossgate.cli import output
from crossgate.cli.documents_awaiting import await_applied, awaited, effects
from crossgate.cli.documents_base import Reconciling, reconcile
from crossgate.cli.documents_dry_run import print_override_plan, print_plan
from crossgate.cli.documents_options import (
    AsJson,
    By,
    ContextName,
    DryRun,
    Files,
    For,
    KindName,
    StoreUrl,
    TimeoutS,
    Wait,
    Why,
    author,
)
from crossgate.cli.documents_print import committed_json, print_committed, print_differences, say_unchanged
from crossgate.cli.documents_session import CONFLICT, FAILED, USAGE, CommandFailed, Session, fail, run
from crossgate.cli.durations import parse_duration
from gateway.config.difference import make_patch, same
from gateway.config.document_files import MAX_STREAM_BYTES, FilesInvalid, read_documents
from gateway.config.drafting import MAX_DOCUMENTS
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.refusal import ChangeRefused
from gateway.config.store.store import CommitTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.change import DocumentChange
    from gateway.config.document_files import FileDocument
    from gateway.config.kinds import DocumentName
    from gateway.config.transaction import Author

_TRIES = 5
_IN_SEVERAL = "`crossgate sync` and `crossgate import` do it in several"


@dataclass(frozen=True, slots=True)
class Applying:
    """The options of `apply`."""

    author: Author
    how: Reconciling
    dry_run: bool
    wait: bool
    timeout_s: float
    for_s: float | None
    as_json: bool


def apply(
    file: Files,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    for_: For = "",
    merge: Annotated[
        bool, typer.Option("--merge", help="Put others' changes of other fields and the file together.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop what others changed since the file was made.")
    ] = False,
    based_on: Annotated[
        int, typer.Option("--based-on", min=0, help="The generation that the file was made from, such as 12.")
    ] = 0,
    kind: KindName = None,
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Make documents what files say: all of them in one transaction, or none.

    What somebody else changed since the file was made, and the file does not have, is shown and not
    overwritten. `get -o yaml` notes in the file what it was made from; else it is what you, or anybody,
    applied from a file last.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed it meanwhile.
    """
    who = author(by, why)
    options = Applying(
        who,
        Reconciling(who.by, based_on, merge, overwrite),
        dry_run,
        wait,
        timeout_s,
        read_for(for_),
        as_json,
    )
    documents = _read(file, kind)
    if based_on and len(documents) > 1:
        fail("--based-on is of one document", USAGE)
    if options.for_s is not None and any(document.name.kind != "model" for document in documents):
        fail("--for makes overrides, which only models have", USAGE)
    run(store, context, lambda session: _apply(session, documents, options), creates=not dry_run)


def diff(
    file: Files,
    kind: KindName = None,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Show how files differ from what is in the store. Exit status 1 if they do."""
    documents = _read(file, kind)

    async def compare(session: Session) -> bool:
        there = (await session.ledger.read_all()).documents
        differ = False
        for document in documents:
            stored = there.get(document.name)
            data = stored.data if stored is not None else None
            if data is None or not same(data, document.data):
                differ = True
                title = f"{document.name}" + (" (new)" if stored is None else "")
                print_differences(title, data, document.data)
        return differ

    raise typer.Exit(FAILED if run(store, context, compare) else 0)


def read_for(text: str) -> float | None:
    """Seconds of `--for`."""
    if not text:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        fail(f"--for: {error}", USAGE)


def _read(files: Sequence[str], kind: KindName) -> tuple[FileDocument, ...]:
    content = sys.stdin.buffer.read(MAX_STREAM_BYTES + 1) if "-" in files else None
    try:
        documents = read_documents(files, kind, content)
    except FilesInvalid as error:
        fail(str(error))
    if not documents:
        fail(f"there is no document in {', '.join(files)}")
    return documents


async def _apply(session: Session, documents: Sequence[FileDocument], options: Applying) -> None:
    if options.for_s is not None:
        await _override(session, documents, options, options.for_s)
        return
    for _ in range(_TRIES):
        holding = await session.ledger.read_all()
        stored = [holding.documents.get(document.name) for document in documents]
        try:
            changes = await reconcile(session.ledger, documents, stored, options.how)
            _say_unchanged(documents, changes, as_json=options.as_json)
            if options.dry_run:
                await print_plan(session, changes, holding, [document.name for document in documents])
                return
            if not changes:
                if options.as_json:
                    say_unchanged("", as_json=True)
                return
            if len(changes) > MAX_DOCUMENTS:
                count = len(changes)
                raise CommandFailed(f"{count} documents are more than one transaction takes; {_IN_SEVERAL}")
            committed = await session.ledger.commit(changes, options.author)
        except ChangedMeanwhile as error:
            if options.how.merge and all(not each.merge.overlaps for each in error.documents):
                continue  # somebody was quicker: once more on top of that
            raise _with_hint(error) from error
        except ChangeRefused as error:
            raise CommandFailed(_with_files(error, documents)) from error
        except CommitTooLarge as error:
            raise CommandFailed(f"{error}; {_IN_SEVERAL}") from error
        print_committed(committed, options.author, as_json=options.as_json)
        if options.wait:
            before, after = effects(changes, holding)
            expected = awaited(committed, before, after)
            await await_applied(session, expected, options.timeout_s, as_json=options.as_json)
        return
    raise CommandFailed("others change the same documents again and again; nothing was written")


async def _override(
    session: Session, documents: Sequence[FileDocument], options: Applying, for_s: float
) -> None:
    """One override for each model, each of which is a transaction of its own."""
    there = (await session.ledger.read_all()).documents
    stored = [there.get(document.name) for document in documents]
    try:
        changes = await reconcile(session.ledger, documents, stored, options.how)
    except ChangedMeanwhile as error:
        raise _with_hint(error) from error
    _say_unchanged(documents, changes, as_json=options.as_json)
    for change in changes:
        base = (change.base.data if change.base is not None else None) or {}
        patch = make_patch(base, change.document or {})
        await put_override(session, change.name, patch, for_s, options)


async def put_override(
    session: Session, name: DocumentName, patch: dict[str, Any], for_s: float, options: Applying
) -> None:
    """Put one override and say so; with `dry_run` only what it would do."""
    standing = await session.ledger.standing(name)
    before = standing.effective
    if options.dry_run:
        await print_override_plan(session, standing, patch, for_s)
        return
    overridden = await session.ledger.override(name, patch, for_s, options.author)
    if options.as_json:
        output.as_json({**committed_json(overridden.committed), "override": overridden.id, "for_s": for_s})
    else:
        print_committed(overridden.committed, options.author)
        print(f"{name}: override {overridden.id} reverts by itself in {for_s:g} s")
    if options.wait:
        after = (await session.ledger.standing(name)).effective
        expected = awaited(overridden.committed, {name: before}, {name: after})
        await await_applied(session, expected, options.timeout_s, as_json=options.as_json)


def _say_unchanged(
    documents: Sequence[FileDocument], changes: Sequence[DocumentChange], *, as_json: bool
) -> None:
    changed = {change.name for change in changes}
    unchanged = [str(document.name) for document in documents if document.name not in changed]
    if unchanged and not as_json:
        many = f" and {len(unchanged) - 10} more" if len(unchanged) > 10 else ""
        print(f"unchanged: {', '.join(unchanged[:10])}{many}")


def _with_hint(error: ChangedMeanwhile) -> CommandFailed:
    hint = "nothing was written. --overwrite drops their change, --based-on N says that the file has it"
    if all(not each.merge.overlaps for each in error.documents):
        hint += ", --merge makes both"
    return CommandFailed(f"{error}\n{hint}", CONFLICT)


def _with_files(error: ChangeRefused, documents: Sequence[FileDocument]) -> str:
    where = {document.name: document.where for document in documents}
    return "\n".join(
        f"{where.get(refusal.name, 'store')}: {line}"
        for refusal in error.refusals
        for line in str(refusal).splitlines()
    )
