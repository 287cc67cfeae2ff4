"""`context`: which store and which gateway commands are about, where nothing else says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from crossgate.cli import output
from crossgate.cli.contexts import (
    Context,
    ContextInvalid,
    Contexts,
    contexts_path,
    read_contexts,
    write_contexts,
)
from crossgate.cli.documents_options import complete_contexts
from crossgate.cli.documents_session import USAGE, fail
from crossgate.cli.gateways_address import GatewayAddress, gateway_here
from gateway.config.store.opening import describe
from gateway.config.store.store import StoreInvalid

app = typer.Typer(help="Name stores and gateways once, and choose among them.", no_args_is_help=True)


Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_contexts)]


@app.command("list")
def list_contexts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the contexts; the current one has a star."""
    contexts = _read()
    rows = [
        ("*" if name == contexts.current else "", name, each.store, each.address, each.admin)
        for name, each in sorted(contexts.contexts.items())
    ]
    output.rows(("current", "name", "store", "address", "admin"), rows, as_json=as_json)


@app.command()
def use(name: Name) -> None:
    """Make a context the current one."""

    def change(contexts: Contexts) -> Contexts:
        contexts.named(name)
        return Contexts(name, contexts.contexts)

    _change(change)
    print(f"current context: {name}")


@app.command("set")
def set_context(
    name: Name,
    store: Annotated[str | None, typer.Option(help="etcd://host:2379/prefix, or a path.")] = None,
    address: Annotated[str | None, typer.Option(help="A gateway's gRPC address.")] = None,
    admin: Annotated[
        str | None, typer.Option(help="A gateway's admin service: unix:/PATH, HOST:PORT.")
    ] = None,
    tls_ca: Annotated[
        str | None, typer.Option(help="PEM file of who has signed gateways' certificates.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Your own certificate, PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key, PEM.")] = None,
) -> None:
    """Make or change a context; what is not given stays, '' removes. The first becomes the current one.

    Paths are kept as absolute ones: a context is used from anywhere.
    """
    given = {"store": store, "address": address, "admin": admin}
    given |= {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key}
    fields = {key: value for key, value in given.items() if value is not None}
    if not fields:
        fail("nothing to set: give --store, --address or --admin", USAGE)
    if store:
        try:
            describe(store)
        except StoreInvalid as error:
            fail(f"--store: {error}", USAGE)
        if "://" not in store:
            fields["store"] = str(Path(store).absolute())
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if fields.get(key):
            fields[key] = str(Path(fields[key]).absolute())

    def change(contexts: Contexts) -> Contexts:
        was = contexts.contexts.get(name, Context())
        return contexts.with_context(name, msgspec.structs.replace(was, **fields))

    contexts = _change(change)
    current = (
        ", the current one" if contexts.current == name else f"; `crossgate context use {name}` chooses it"
    )
    print(f"context {name} is set{current}")


@app.command()
def delete(name: Name) -> None:
    """Forget a context; its store is left alone."""
    contexts = _change(lambda contexts: contexts.without(name))
    print(f"context {name} is deleted{'' if contexts.current else '; none is current now'}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="[NAME]", autocompletion=complete_contexts)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a context, by default the current one."""
    contexts = _read()
    try:
        context = contexts.in_force(name)
    except ContextInvalid as error:
        fail(str(error), USAGE)
    if not (name or contexts.current):
        fail("no context is current; `crossgate context use NAME` chooses one")
    fields = {"name": name or contexts.current, **msgspec.to_builtins(context)}
    if as_json:
        output.as_json(fields)
    else:
        output.rows(("field", "value"), [(key, str(value)) for key, value in fields.items()])


def resolve_gateway(text: str) -> GatewayAddress:
    """The gateway that is named, else the current context's, else the one that runs here. Fails."""
    context = Context() if text else in_force()
    found = gateway_here(text or context.admin)
    if not context.admin:
        return found
    files = (Path(each) if each else None for each in (context.tls_ca, context.tls_cert, context.tls_key))
    return GatewayAddress(found.address, *files)


def in_force() -> Context:
    """The current context, an empty one without any. Fails where the file cannot be read."""
    try:
        return _read().in_force()
    except ContextInvalid as error:
        fail(str(error), USAGE)


def _read() -> Contexts:
    try:
        return read_contexts(contexts_path())
    except ContextInvalid as error:
        fail(str(error), USAGE)


def _change(change: Callable[[Contexts], Contexts]) -> Contexts:
    try:
        changed = change(read_contexts(contexts_path()))
        write_contexts(contexts_path(), changed)
    except ContextInvalid as error:
        fail(str(error), USAGE)
    return changed
