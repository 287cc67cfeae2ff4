"""`freeze` and `unfreeze`: which models nobody changes for now."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crossgate.cli.documents_options import AsJson, By, ContextName, StoreUrl, Why, author
from crossgate.cli.documents_print import print_committed, say_unchanged
from crossgate.cli.documents_session import USAGE, CommandFailed, Session, fail, run
from gateway.config.kinds import GATEWAY
from gateway.config.path import with_value, without
from gateway.config.refusal import unfreezing
from gateway.config.wording import did_you_mean, listed, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.change import Committed
    from gateway.config.transaction import Author

Pattern = Annotated[str, typer.Argument(help="A model's name, with shell wildcards. Default: all models.")]


def freeze(
    why: Annotated[str, typer.Option("--why", "-m", help="Shown to whoever tries to change them.")],
    pattern: Pattern = "*",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Keep models' documents from being changed, by anybody, until `unfreeze`."""
    if not why.strip():
        fail("--why: say why", USAGE)

    def amend(data: dict[str, Any]) -> dict[str, Any]:
        return with_value(data, ("frozen", pattern), why)

    done = f"frozen: {pattern}; `{unfreezing(pattern)}` ends it"
    _amend_gateway(amend, author(by, why), "freeze", pattern, done, store, context, as_json=as_json)


def unfreeze(
    pattern: Pattern = "*",
    why: Why = "",
    by: By = "",
    as_json: AsJson = False,
    store: StoreUrl = "",
    context: ContextName = "",
) -> None:
    """Let models' documents be changed again: ends exactly one `freeze`."""

    def amend(data: dict[str, Any]) -> dict[str, Any]:
        frozen = data.get("frozen")
        there = [*frozen] if isinstance(frozen, dict) else []
        if pattern not in there:
            nearest = did_you_mean(pattern, there) or (f"; frozen is {listed(there)}" if there else "")
            raise CommandFailed(f"{quote(pattern)} is not frozen{nearest or '; nothing is'}")
        return without(data, ("frozen", pattern))

    done = f"no longer frozen: {pattern}"
    _amend_gateway(amend, author(by, why), "unfreeze", pattern, done, store, context, as_json=as_json)


def _amend_gateway(
    amend: Callable[[dict[str, Any]], dict[str, Any]],
    who: Author,
    action: Literal["freeze", "unfreeze"],
    pattern: str,
    done: str,
    store: str,
    context: str,
    *,
    as_json: bool,
) -> None:
    async def work(session: Session) -> Committed | None:
        committed = await session.ledger.amend(GATEWAY, amend, who, action, create=True)
        if action == "freeze":
            await _say_if_none(session, pattern)
        return committed

    committed = run(store, context, work)
    if committed is None:
        say_unchanged(done, as_json=as_json)
        return
    print_committed(committed, who, as_json=as_json)
    if not as_json:
        print(done)


async def _say_if_none(session: Session, pattern: str) -> None:
    """A mistyped pattern is as good as any other, until somebody changes what it was to keep."""
    models = [name.name for name in (await session.ledger.read_all()).documents if name.kind == "model"]
    if not any(fnmatchcase(model, pattern) for model in models):
        nearest = did_you_mean(pattern, models)
        typer.echo(f"note: no model is called {quote(pattern)} now{nearest}", err=True)
