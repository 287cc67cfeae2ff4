"""`--wait`: from a commit to what gateways are expected to say of it, and to an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from crossgate.cli.documents_plan import loading_of
from crossgate.cli.documents_session import CommandFailed, Session
from crossgate.cli.waiting import Awaited, wait_until_applied
from gateway.config.document import ModelDocument
from gateway.config.errors import DocumentInvalid
from gateway.config.kinds import DocumentName, validate_document
from gateway.config.standing import effective

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from gateway.config.change import Committed, DocumentChange
    from gateway.config.holding import Holding


def model_of(name: DocumentName, data: Mapping[str, Any] | None) -> ModelDocument | None:
    """A model's document; None for no document, an invalid one and one of another kind."""
    if data is None or name.kind != "model":
        return None
    try:
        document = validate_document(name, data)
    except DocumentInvalid:
        return None
    assert isinstance(document, ModelDocument), "its kind is model"
    return document


def effects(
    changes: Sequence[DocumentChange], holding: Holding
) -> tuple[dict[DocumentName, Any], dict[DocumentName, Any]]:
    """{name: effective data} before and after changes."""
    before: dict[DocumentName, Any] = {}
    after: dict[DocumentName, Any] = {}
    for change in changes:
        overrides = holding.overrides.get(change.name.name, ()) if change.name.kind == "model" else ()
        was = change.base.data if change.base is not None else None
        before[change.name] = effective(was, overrides) if was is not None else None
        after[change.name] = effective(change.document, overrides) if change.document is not None else None
    return before, after


def awaited(
    committed: Committed, before: Mapping[DocumentName, Any], after: Mapping[DocumentName, Any]
) -> tuple[Awaited, ...]:
    """What to await of a commit; `before` and `after` are {name: effective data, None for no document}."""
    found: list[Awaited] = []
    for name in committed.generations:
        if name.kind == "gateway":
            found.append(Awaited(committed.revision))
        elif name.kind == "model":
            was, will = model_of(name, before.get(name)), model_of(name, after.get(name))
            versions = loading_of(was, will).concerned
            found.append(Awaited(committed.revision, name.name, versions, deleted=will is None))
    return tuple(found)


async def await_applied(
    session: Session, expected: Iterable[Awaited], timeout_s: float, *, as_json: bool = False
) -> None:
    """Say what is awaited, and how it ends. Raises CommandFailed with the reason where it ends badly. With
    `as_json` all of it goes to stderr.
    """
    expected = tuple(expected)
    if not expected:
        typer.echo("nothing to wait for: access documents are read before the next request", err=True)
        return

    def tell(reason: str) -> None:
        typer.echo(f"waiting: {reason}", err=True)

    outcome = await wait_until_applied(session.store, expected, timeout_s, tell)
    reasons = "".join(f"\n  {reason}" for reason in outcome.reasons)
    away = f"\n  {session.store.away}" if session.store.away else ""
    match outcome.state:
        case "applied":
            count = len(outcome.gateways)
            many = "s" if count > 1 else ""
            typer.echo(f"applied on {count} gateway{many}: {', '.join(outcome.gateways)}", err=as_json)
        case "nobody":
            typer.echo("note: it is in the store; no gateway is live that could apply it", err=True)
        case "gone":
            raise CommandFailed("it is in the store, but the last live gateway went while it was awaited")
        case "failed":
            raise CommandFailed(f"it is in the store, but cannot be applied:{reasons}")
        case "late":
            raise CommandFailed(f"it is in the store, but after {timeout_s:g} s not applied:{reasons}{away}")
