"""`sync`, `import` and `export`: whole directories of documents into a store, and back."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from crossgate.cli.documents_awaiting import await_applied, awaited, effects
from crossgate.cli.documents_dry_run import print_plan
from crossgate.cli.documents_options import (
    By,
    ContextName,
    DryRun,
    KindName,
    StoreUrl,
    TimeoutS,
    Wait,
    Why,
    author,
)
from crossgate.cli.documents_print import show_document, show_documents
from crossgate.cli.documents_session import FAILED, USAGE, CommandFailed, Session, fail, run
from gateway.config.change import DocumentChange
from gateway.config.difference import canonical, same
from gateway.config.document_files import MAX_STREAM_BYTES, FilesInvalid, read_documents
from gateway.config.drafting import MAX_DOCUMENTS
from gateway.config.kinds import GATEWAY
from gateway.config.store.store import CommitTooLarge
from gateway.config.wording import listed

if TYPE_CHECKING:
    from gateway.config.document_files import FileDocument
    from gateway.config.history import Action
    from gateway.config.holding import Holding
    from gateway.config.kinds import DocumentName
    from gateway.config.transaction import Author

# Of the documents of one transaction: each is in it twice, as itself and in its history; 1.5 MB is the most.
_BATCH_BYTES: Final = 450_000
_FROM_DIRECTORIES: Final = frozenset({"sync", "import"})


def sync(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Of documents, at any depth.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete models and access documents that DIR does not have.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    why: Why = "",
    by: By = "",
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Make the store what a directory says, such as a checkout of a repository.

    The directory wins over what was changed since; what changes while it runs is not overwritten. More than
    60 documents are done in several transactions; run it again to go on where it was stopped. `--prune` never
    deletes the gateway's document, nor a kind of document of which DIR has none.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed it meanwhile.
    """
    if not directory.is_dir():
        fail(f"{directory} is not a directory", USAGE)
    documents = _read([str(directory)], None, None)
    if not documents:
        fail(f"there is no document in {directory}")
    who = author(by, why)

    async def work(session: Session) -> None:
        holding = await session.ledger.read_all()
        changes = [*_puts(documents, holding, "sync"), *(_prunes(documents, holding) if prune else ())]
        extra = [] if prune else [change.name for change in _prunes(documents, holding)]
        if extra:
            print(f"not in {directory}, and left as they are without --prune: {listed(map(str, extra))}")
        await _say_replaced(session, changes)
        if dry_run:
            await print_plan(session, changes, holding, [document.name for document in documents])
            return
        await _commit_all(session, changes, holding, who, timeout_s if wait else None)

    run(store, context, work, creates=not dry_run)


def import_(
    source: Annotated[str, typer.Argument(metavar="FILE|DIR|-", help="As `export` wrote it.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also what the store has and is different.")
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    kind: KindName = None,
    why: Why = "",
    by: By = "",
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Put exported documents into a store; history and overrides do not come with them.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed it meanwhile.
    """
    content = sys.stdin.buffer.read(MAX_STREAM_BYTES + 1) if source == "-" else None
    documents = _read([source], kind, content)
    if not documents:
        fail(f"there is no document in {source}")
    who = author(by, why)

    async def work(session: Session) -> None:
        holding = await session.ledger.read_all()
        changes = _puts(documents, holding, "import")
        different = [str(change.name) for change in changes if change.base is not None]
        if different and not overwrite:
            hint = "`crossgate diff` shows how, --overwrite replaces them"
            raise CommandFailed(f"already there, and different: {listed(different)}; {hint}")
        if dry_run:
            await print_plan(session, changes, holding, [document.name for document in documents])
            return
        await _commit_all(session, changes, holding, who, timeout_s if wait else None)

    run(store, context, work, creates=not dry_run)


def export(
    target: Annotated[str, typer.Argument(metavar="DIR|-", help="A new or empty directory; - for a stream.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also into a directory with files.")] = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Write all documents as YAML: models/NAME.yaml, access/NAME.yaml and gateway.yaml."""
    folder = None if target == "-" else Path(target)
    if folder is not None and folder.exists():
        if not folder.is_dir():
            fail(f"{folder} is no directory", USAGE)
        if any(folder.iterdir()) and not overwrite:
            fail(f"{folder} is not empty: files of other documents would stay; --overwrite writes anyway")

    async def work(session: Session) -> dict[DocumentName, str]:
        holding = await session.ledger.read_all()
        texts: dict[DocumentName, str] = {}
        for name, stored in sorted(holding.documents.items()):
            if stored.data is None:
                raise CommandFailed(stored.problem)
            if name == GATEWAY and not stored.data.keys() - {"schema"}:
                continue  # it says nothing, and is what is there without one
            texts[name] = show_document(name, stored.data, "yaml")
        if holding.overrides:
            typer.echo(f"note: overrides of {listed(holding.overrides)} are not exported", err=True)
        return texts

    texts = run(store, context, work)
    if folder is None:
        print(show_documents(texts.values()), end="")
        return
    try:
        for name, text in texts.items():
            path = folder / _file_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{folder}: {error}", FAILED)
    print(f"exported {_documents(len(texts))} to {folder}")


def _file_of(name: DocumentName) -> str:
    match name.kind:
        case "model":
            return f"models/{name.name}.yaml"
        case "access":
            return f"access/{name.name}.yaml"
        case "gateway":
            return "gateway.yaml"


def _read(paths: Sequence[str], kind: KindName, content: bytes | None) -> tuple[FileDocument, ...]:
    try:
        return read_documents(paths, kind, content)
    except FilesInvalid as error:
        fail(str(error))


def _puts(documents: Sequence[FileDocument], holding: Holding, action: Action) -> list[DocumentChange]:
    """The gateway's document first, which may freeze or free models; then by name."""
    changes: list[DocumentChange] = []
    for document in sorted(documents, key=lambda each: (each.name.kind != "gateway", each.name)):
        there = holding.documents.get(document.name)
        if there is None or there.data is None or not same(there.data, document.data):
            changes.append(DocumentChange(document.name, document.data, there, action))
    return changes


def _prunes(documents: Sequence[FileDocument], holding: Holding) -> list[DocumentChange]:
    names = {document.name for document in documents}
    kinds = {name.kind for name in names} - {"gateway"}
    return [
        DocumentChange(name, None, stored, "sync")
        for name, stored in sorted(holding.documents.items())
        if name.kind in kinds and name not in names
    ]


async def _say_replaced(session: Session, changes: Sequence[DocumentChange]) -> None:
    """The directory wins, but not in silence over what was changed by hand."""
    for change in changes:
        latest = (await session.ledger.standing(change.name)).latest if change.base is not None else None
        if latest is not None and latest.entry.action not in _FROM_DIRECTORIES:
            typer.echo(f"note: {change.name}: replaces {latest}", err=True)


async def _commit_all(
    session: Session,
    changes: Sequence[DocumentChange],
    holding: Holding,
    who: Author,
    timeout_s: float | None,
) -> None:
    """In as many transactions as it takes, after a look whether any would be refused."""
    if not changes:
        print("unchanged: the store has it all")
        return
    if refusals := await session.ledger.check(changes):
        raise CommandFailed("\n".join(["nothing was written:", *map(str, refusals)]))
    batches = deque(_batches(changes))
    number = done = 0
    while batches:
        batch = batches.popleft()
        try:
            committed = await session.ledger.commit(batch, who)
        except CommitTooLarge:  # overrides that go with their models, or history of what had none
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            batches.extendleft((batch[half:], batch[:half]))
            continue
        except BaseException:
            if done:
                all_ = _documents(len(changes))
                typer.echo(f"stopped: {done} of {all_} are done; run it again to go on", err=True)
            raise
        number, done = number + 1, done + len(batch)
        of = f"transaction {number} of {number + len(batches)}: " if number + len(batches) > 1 else ""
        deleted = sum(change.document is None for change in batch)
        what = f"{_documents(len(batch) - deleted)} written{f', {deleted} deleted' if deleted else ''}"
        why = f": {who.why}" if who.why else ""
        print(f"{of}{what}, revision {committed.revision} (by {who.by}{why})")
        if timeout_s is not None:
            before, after = effects(batch, holding)
            await await_applied(session, awaited(committed, before, after), timeout_s)


def _batches(changes: Sequence[DocumentChange]) -> list[list[DocumentChange]]:
    batches: list[list[DocumentChange]] = []
    size = 0
    for change in changes:
        bytes_ = len(canonical(change.document))
        if not batches or len(batches[-1]) == MAX_DOCUMENTS or size + bytes_ > _BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(change)
        size += bytes_
    return batches


def _documents(count: int) -> str:
    return f"{count} document{'' if count == 1 else 's'}"
