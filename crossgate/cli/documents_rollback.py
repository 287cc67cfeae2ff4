"""`rollback` and `revert`: a document as it was, and without its overrides."""

from __future__ import annotations

from typing import Annotated

import typer

from crossgate.cli.documents_awaiting import await_applied, awaited, effects
from crossgate.cli.documents_base import find_written
from crossgate.cli.documents_dry_run import print_plan
from crossgate.cli.documents_options import (
    AsJson,
    By,
    ContextName,
    DryRun,
    OneDocument,
    StoreUrl,
    TimeoutS,
    Wait,
    Why,
    author,
)
from crossgate.cli.documents_print import print_committed, say_unchanged
from crossgate.cli.documents_session import USAGE, CommandFailed, Session, known, run
from gateway.config.change import DocumentChange
from gateway.config.difference import same
from gateway.config.kinds import parse_name


def rollback(
    model: OneDocument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="REVISION|gN",
            help="A revision of the document such as 3456, or a generation such as g12, as `history` lists "
            "them. Not a version of the model.",
        ),
    ],
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Make a document what it was: a new generation with the old content. Overrides stay in force."""
    who = author(by, why)

    async def work(session: Session) -> None:
        name = parse_name(model)
        holding = await session.ledger.read_all()
        recorded = await session.ledger.history(name)
        if not recorded:
            known(name, holding)
        at = find_written(to, recorded, name)
        found, described = at.entry, f"generation {at.entry.generation}"
        base = holding.documents.get(name)
        if base is None and found.document is None:
            raise CommandFailed(
                f"{name} is not there, and was deleted in {described}; `crossgate history {name}` shows what "
                "it was before"
            )
        if base is not None and base.data is not None and same(base.data, found.document):
            say_unchanged(f"{name} is as in {described} (revision {at.revision})", as_json=as_json)
            return
        change = DocumentChange(name, found.document, base, "rollback", restored=found.generation)
        if dry_run:
            await print_plan(session, [change], holding)
            return
        committed = await session.ledger.commit([change], who)
        print_committed(committed, who, as_json=as_json)
        if not as_json:
            is_ = "deleted, as" if found.document is None else "as"
            print(f"{name}: is {is_} in {described} again (revision {at.revision})")
        if wait:
            before, after = effects([change], holding)
            await await_applied(session, awaited(committed, before, after), timeout_s, as_json=as_json)

    run(store, context, work)


def revert(
    model: OneDocument,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Default: all of them.")] = None,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """End overrides of a model before their time."""
    who = author(by, why)

    async def work(session: Session) -> None:
        name = parse_name(model)
        holding = await session.ledger.read_all()
        if name.kind != "model":
            raise CommandFailed(f"{name} is no model: only models have overrides", USAGE)
        known(name, holding)
        before = await session.ledger.standing(name)
        ending = ids or [each.id for each in before.overrides]
        committed = await session.ledger.end_overrides(name, ending, who)
        print_committed(committed, who, as_json=as_json)
        if not as_json:
            print(f"{name}: ended {', '.join(ending)}")
        if wait:
            after = await session.ledger.standing(name)
            expected = awaited(committed, {name: before.effective}, {name: after.effective})
            await await_applied(session, expected, timeout_s, as_json=as_json)

    run(store, context, work)
