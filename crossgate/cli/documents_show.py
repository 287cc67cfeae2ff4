"""`get`, `history` and `show`: what a store holds, and what it held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from crossgate.cli import output
from crossgate.cli.documents_base import find_generation
from crossgate.cli.documents_options import (  # noqa: TC001  # typer reads the annotations at run time
    AsJson,
    ContextName,
    Documents,
    OneDocument,
    StoreUrl,
)
from crossgate.cli.documents_print import Format, print_differences, show_document, show_documents
from crossgate.cli.documents_session import USAGE, CommandFailed, Session, fail, known, names, run
from crossgate.cli.durations import show_duration
from gateway.config.difference import differences
from gateway.config.history import printable
from gateway.config.kinds import KINDS, DocumentName, parse_name, type_of
from gateway.config.override import MARGIN_S
from gateway.config.schema import ordered
from gateway.config.standing import InForce, effective
from gateway.config.store.store import LeaseGone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.history import Recorded
    from gateway.config.holding import Holding

_MOST_ORIGINS = 100  # each is a read of its own


def get(
    models: Documents = None,
    output_: Annotated[
        Literal["table", "yaml", "json", "xml", "names"] | None,
        typer.Option("--output", "-o", help="Default: table of all, yaml of those that are named."),
    ] = None,
    with_overrides: Annotated[
        bool, typer.Option("--effective", help="With the overrides that are in force.")
    ] = False,
    kind: Annotated[
        Literal["model", "gateway", "access", "all"],
        typer.Option("--kind", help="Which, where none is named."),
    ] = "all",
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Show documents. YAML and XML are files that `apply` takes back, and say what they were made from."""
    wanted = output_ or ("yaml" if models else "table")

    async def work(session: Session) -> None:
        holding = await session.ledger.read_all()
        found = [known(name, holding) for name in names(models or ())]
        if not models:
            found = sorted(name for name in holding.documents if kind in ("all", name.kind))
            found.sort(key=lambda name: KINDS.index(name.kind))
        for key in holding.unknown if not models else ():
            typer.echo(f"note: {key} is no document; nobody reads it", err=True)
        if wanted == "names":
            print("\n".join(map(str, found)))
        elif wanted == "table":
            await _print_table(session, found, holding)
        elif wanted == "xml" and len(found) != 1:
            raise CommandFailed("-o xml is of one document: name it", USAGE)
        else:
            await _print_documents(session, found, holding, wanted, with_overrides=with_overrides)

    run(store, context, work)


def history(
    model: OneDocument,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many of the latest.")] = 20,
    diff: Annotated[bool, typer.Option("--diff", help="Everything that each changed.")] = False,
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Show who changed a document, when, why and what, the latest last."""

    async def work(session: Session) -> Sequence[Recorded]:
        name = parse_name(model)
        recorded = await session.ledger.history(name)
        if not recorded:
            known(name, await session.ledger.read_all())
            raise CommandFailed(f"{name} has no history: it was written past the ledger")
        return recorded

    recorded = run(store, context, work)
    before = {each.entry.generation: was for was, each in zip((None, *recorded), recorded, strict=False)}
    shown = recorded[-last:]
    if as_json:
        print(msgspec.json.encode([{"revision": each.revision, **_plain(each)} for each in shown]).decode())
    elif diff:
        for each in shown:
            was = before[each.entry.generation]
            print_differences(str(each), was.entry.document if was is not None else None, each.entry.document)
            _print_override(each)
    else:
        rows = [
            (
                f"g{each.entry.generation}", str(each.revision), printable(each.entry.at),
                printable(each.entry.by) or "unknown", printable(each.entry.action),
                printable(_summary(before[each.entry.generation], each)), printable(each.entry.why),
            )
            for each in shown
        ]  # fmt: skip
        output.rows(("generation", "revision", "at", "by", "action", "change", "why"), rows)


def show(
    model: OneDocument,
    revision: Annotated[int, typer.Option("--revision", min=0, help="As of this revision of the store.")] = 0,
    generation: Annotated[int, typer.Option("--generation", min=0, help="As of this generation.")] = 0,
    output_: Annotated[Format, typer.Option("--output", "-o")] = "yaml",
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Show a document as it was, from its history; without a revision or generation, the latest."""
    if revision and generation:
        fail("--revision and --generation exclude each other", USAGE)

    async def work(session: Session) -> None:
        name = parse_name(model)
        recorded = await session.ledger.history(name)
        if not recorded:
            known(name, await session.ledger.read_all())
        latest = recorded[-1].entry.generation if recorded else 0
        wanted = str(revision) if revision else f"g{generation or latest}"
        found = find_generation(wanted, recorded)
        if found.entry.document is None:
            raise CommandFailed(f"{name} was deleted then: {found}")
        print(show_document(name, found.entry.document, output_, found), end="")

    run(store, context, work)


async def _print_documents(
    session: Session,
    found: Sequence[DocumentName],
    holding: Holding,
    wanted: Format,
    *,
    with_overrides: bool,
) -> None:
    data = {name: _data(name, holding, with_overrides=with_overrides) for name in found}
    if wanted == "json":
        plain = [ordered(document, type_of(name.kind)) for name, document in data.items()]
        output.as_json(plain[0] if len(plain) == 1 else plain)
        return
    latest: dict[DocumentName, Recorded | None] = {}
    if len(data) <= _MOST_ORIGINS and not with_overrides:
        latest = {name: (await session.ledger.standing(name)).latest for name in data}
    texts = [show_document(name, document, wanted, latest.get(name)) for name, document in data.items()]
    print(show_documents(texts), end="")


def _data(name: DocumentName, holding: Holding, *, with_overrides: bool) -> dict[str, Any]:
    stored = holding.documents[name]
    if stored.data is None:
        raise CommandFailed(stored.problem)
    overrides = holding.overrides.get(name.name, ()) if name.kind == "model" else ()
    return effective(stored.data, overrides) if with_overrides else stored.data


async def _print_table(session: Session, found: Sequence[DocumentName], holding: Holding) -> None:
    rows = []
    for name in found:
        stored = holding.documents[name]
        overrides = holding.overrides.get(name.name, ()) if name.kind == "model" else ()
        said = stored.problem or _said(stored.data or {})
        shown = await _in_force(session, overrides)
        rows.append((str(name), str(stored.revision), printable(said), printable(shown)))
    output.rows(("document", "revision", "says", "overrides"), rows)


def _said(data: Mapping[str, Any]) -> str:
    """What matters most of a document, whatever is wrong with the rest."""
    parts: list[str] = []
    for key in ("versions", "labels", "access", "log_level", "frozen"):
        value = data.get(key)
        if isinstance(value, dict) and value:
            shown = [each if key in ("versions", "frozen") else f"{each}={value[each]}" for each in value]
            parts.append(f"{key} {', '.join(shown[:6])}{' ...' if len(shown) > 6 else ''}")
        elif isinstance(value, str):
            parts.append(f"{key} {value}")
    traffic = data.get("traffic")
    split = traffic.get("split") if isinstance(traffic, dict) else None
    if isinstance(split, dict) and split:
        parts.append("split " + ", ".join(f"{target}={weight}" for target, weight in split.items()))
    return "; ".join(parts)


async def _in_force(session: Session, overrides: Sequence[InForce]) -> str:
    shown: list[str] = []
    for each in overrides:
        try:
            left_s = await session.store.remaining_s(each.lease) - MARGIN_S
        except LeaseGone:
            continue
        shown.append(f"{each.id} by {each.override.by}, {show_duration(left_s)} left")
    return "; ".join(shown)


def _summary(before: Recorded | None, recorded: Recorded) -> str:
    entry = recorded.entry
    if entry.action == "override":
        return f"{', '.join(entry.overrides)}: {msgspec.json.encode(entry.patch).decode()}"
    if entry.overrides:
        return f"ends {', '.join(entry.overrides)}"
    if entry.document is None:
        return "deleted"
    if before is None or before.entry.document is None:
        return "new" if entry.generation == 1 or before is not None else "the oldest that is kept"
    found = [str(each) for each in differences(before.entry.document, entry.document)]
    restored = [f"as g{entry.restored} again"] if entry.restored else []
    return "; ".join([*restored, *found[:2], *([f"{len(found) - 2} more"] if len(found) > 2 else [])])


def _print_override(recorded: Recorded) -> None:
    entry = recorded.entry
    if entry.patch is not None:
        print(f"  override {', '.join(entry.overrides)} for {show_duration(entry.for_s)}:")
        print(f"    {msgspec.json.encode(entry.patch).decode()}")
    elif entry.overrides:
        print(f"  ends the overrides {', '.join(entry.overrides)}")


def _plain(recorded: Recorded) -> dict[str, Any]:
    plain = msgspec.to_builtins(recorded.entry)
    assert isinstance(plain, dict), "a struct is a mapping"
    return plain
