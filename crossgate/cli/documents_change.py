"""`set` and `delete`: changes without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossgate.cli.documents_apply import Applying, put_override, read_for
from crossgate.cli.documents_awaiting import await_applied, awaited, effects
from crossgate.cli.documents_base import Reconciling
from crossgate.cli.documents_dry_run import print_plan
from crossgate.cli.documents_options import (
    AsJson,
    By,
    ContextName,
    Documents,
    DryRun,
    For,
    OneDocument,
    StoreUrl,
    TimeoutS,
    Wait,
    Why,
    author,
)
from crossgate.cli.documents_print import print_committed, say_unchanged
from crossgate.cli.documents_session import USAGE, CommandFailed, Session, fail, known, names, run
from gateway.config.change import DocumentChange
from gateway.config.difference import make_patch, same
from gateway.config.errors import DocumentInvalid
from gateway.config.kinds import GATEWAY, DocumentName, parse_name, type_of
from gateway.config.path import PathInvalid, parse_path, type_at, with_value, without
from gateway.config.schema import read_value
from gateway.config.wording import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def set_fields(
    model: OneDocument,
    fields: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH=VALUE...",
            help="Such as traffic.split.canary=10 or 'labels[\"a.b\"]=2'; PATH- removes. Mappings are YAML.",
        ),
    ],
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    for_: For = "",
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Change fields of a document, all in one transaction. What others change of other fields is kept.

    Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed the same fields.
    """
    who = author(by, why)
    for_s = read_for(for_)
    options = Applying(who, Reconciling(who.by), dry_run, wait, timeout_s, for_s, as_json)

    async def work(session: Session) -> None:
        name = parse_name(model)
        amend = _amending(name, fields)
        holding = await session.ledger.read_all()
        if name != GATEWAY:
            known(name, holding)
        base = holding.documents.get(name)
        if base is not None and base.data is None:
            raise CommandFailed(base.problem)
        data = (base.data if base is not None else None) or {}
        document = amend(data)
        if for_s is not None:
            if name.kind != "model":
                raise CommandFailed("--for makes overrides, which only models have", USAGE)
            await put_override(session, name, make_patch(data, document), for_s, options)
            return
        change = DocumentChange(name, document, base, "set")
        if dry_run:
            await print_plan(session, [] if same(document, data) else [change], holding, [name])
            return
        committed = await session.ledger.amend(name, amend, who, "set", create=name == GATEWAY)
        if committed is None:
            say_unchanged(str(name), as_json=as_json)
            return
        print_committed(committed, who, as_json=as_json)
        if wait:
            before, after = effects([change], holding)
            await await_applied(session, awaited(committed, before, after), timeout_s, as_json=as_json)

    run(store, context, work)


def delete(
    models: Documents,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout_s: TimeoutS = 60.0,
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Delete documents, in one transaction. Their history stays, and `rollback` brings them back."""
    who = author(by, why)

    async def work(session: Session) -> None:
        holding = await session.ledger.read_all()
        found = [known(name, holding) for name in names(models or ())]
        changes = [DocumentChange(name, None, holding.documents[name], "delete") for name in found]
        if dry_run:
            await print_plan(session, changes, holding)
            return
        committed = await session.ledger.commit(changes, who)
        print_committed(committed, who, as_json=as_json)
        if wait:
            before, after = effects(changes, holding)
            await await_applied(session, awaited(committed, before, after), timeout_s, as_json=as_json)

    if not models:
        fail("which documents? Name them", USAGE)
    run(store, context, work)


def _amending(name: DocumentName, fields: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Read PATH=VALUE and PATH- by the document's types. Raises PathInvalid."""
    steps: list[tuple[tuple[str | int, ...], bool, object]] = []  # (path, whether it is set, value)
    for text in fields:
        left, equals, value = _parted(text)
        if not equals and not left.endswith("-"):
            raise PathInvalid(f"{quote(text)}: expected PATH=VALUE, or PATH- to remove it")
        path = parse_path(left if equals else left[:-1])
        kind = type_at(type_of(name.kind), path)
        try:
            steps.append((path, bool(equals), read_value(kind, value) if equals else None))
        except DocumentInvalid as error:
            raise PathInvalid(f"{left}: {error}") from None

    def amend(data: dict[str, Any]) -> dict[str, Any]:
        for path, is_set, value in steps:
            data = with_value(data, path, value) if is_set else without(data, path)
        return data

    return amend


def _parted(text: str) -> tuple[str, str, str]:
    """At the first `=` that is in no quoted key."""
    quoted = False
    for at, character in enumerate(text):
        if character == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif character == "=" and not quoted:
            return text[:at], "=", text[at + 1 :]
    return text, "", ""
