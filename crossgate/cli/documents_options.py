"""The options that commands on documents have in common, and how names complete in a shell."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from typing import Annotated, Literal

import typer

from gateway.config.transaction import Author

_COMPLETION_S = 1.0
_LONGEST = 1000  # who and why: both are in the history as often as documents are

PANEL = "Documents in a store"
EXITS = "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 somebody else changed it meanwhile."


def complete_documents(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Names of documents that begin so; none where the store does not answer at once. Says nothing else:
    whatever it printed would land in the middle of what the operator types.
    """
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        return asyncio.run(
            _names(str(ctx.params.get("store") or ""), str(ctx.params.get("context") or ""), incomplete)
        )
    except Exception:
        return []


def complete_contexts(incomplete: str) -> list[str]:
    from crossgate.cli.contexts import ContextInvalid, contexts_path, read_contexts

    try:
        return [name for name in read_contexts(contexts_path()).contexts if name.startswith(incomplete)]
    except ContextInvalid:
        return []


async def _names(option: str, context: str, incomplete: str) -> list[str]:
    from crossgate.cli.contexts import choose_store, contexts_path
    from crossgate.cli.documents_session import refuse_missing_file
    from gateway.config.holding import read_holding
    from gateway.config.store.opening import open_store

    option = option or os.environ.get("CROSSGATE_STORE", "")
    chosen = choose_store(option, context, path=contexts_path())
    refuse_missing_file(chosen)
    async with asyncio.timeout(_COMPLETION_S), open_store(chosen.url) as store:
        holding = await read_holding(store)
    return sorted(str(name) for name in holding.documents if str(name).startswith(incomplete))


def author(by: str, why: str) -> Author:
    """Who runs the command: what `--by` says, else the user at this machine. Fails where either is no text
    for a line of a history.
    """
    for option, text in (("--by", by), ("--why", why)):
        if len(text) > _LONGEST or not text.isprintable():
            raise typer.BadParameter(f"expected one line of at most {_LONGEST} characters", param_hint=option)
    if by:
        return Author(by, why)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for the user, as in some containers
        user = f"uid-{os.getuid()}"
    return Author(f"{user}@{socket.gethostname()}", why)


StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="CROSSGATE_STORE",
        help="etcd://host:2379/prefix, or the path of a local store. Default: the context's.",
    ),
]
ContextName = Annotated[
    str,
    typer.Option(
        "--context",
        help="Another context than the current one; its store wins over --store.",
        autocompletion=complete_contexts,
    ),
]
By = Annotated[
    str,
    typer.Option("--by", envvar="CROSSGATE_BY", help="Who changes it, for the history. Default: USER@HOST."),
]
Why = Annotated[str, typer.Option("--why", "-m", help="Why, for the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is applied on every live gateway.")]
TimeoutS = Annotated[float, typer.Option("--timeout-s", help="How long to wait.", min=0.1)]
For = Annotated[str, typer.Option("--for", help="As an override that reverts by itself, such as 15m.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
KindName = Annotated[
    Literal["model", "gateway", "access"] | None,
    typer.Option("--kind", help="Of documents that do not say it themselves."),
]
OneDocument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model's name; also policies/gateway or access/NAME.",
        autocompletion=complete_documents,
    ),
]
Documents = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Models' names; also policies/gateway or access/NAME.",
        autocompletion=complete_documents,
    ),
]
Files = Annotated[
    list[str],
    typer.Option("--file", "-f", help="YAML, JSON or XML; a folder; - for standard input. May be repeated."),
]
