"""The commands, one function each; what they print is in `output`, what they do in the modules they call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossgate.cli import check, documents, documents_contexts, gateways, output, serve, worker
from crossgate.cli.bench import bench
from crossgate.cli.gateways_address import checked_address
from crossgate.cli.gateways_tls import credentials_of

app = typer.Typer(
    help="Crossgate: a gRPC inference gateway for CPU, CUDA and OpenVINO devices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

DEFAULT_ADDRESS = "127.0.0.1:8001"
Address = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        help=f"The gateway's gRPC address, or unix:/path; default that of the context, or {DEFAULT_ADDRESS}.",
        envvar="CROSSGATE_ADDRESS",
    ),
]
TlsCa = Annotated[
    Path | None, typer.Option(help="PEM file of who has signed the gateway's certificate: turns TLS on.")
]
TlsCertificate = Annotated[Path | None, typer.Option(help="Your own certificate, PEM: turns TLS on.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"crossgate {version('crossgate')}")
        raise typer.Exit


@app.callback()
def crossgate(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass  # its one option has done its work


def _of_context(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None
) -> tuple[str, Path | None, Path | None, Path | None]:
    """Return where a gateway is: as the options say, else the current context, else the usual place here."""
    if address or ca or certificate or key:
        return checked_address("--address", address or DEFAULT_ADDRESS), ca, certificate, key
    context = documents_contexts.in_force()
    if not context.address:
        return DEFAULT_ADDRESS, None, None, None
    ca, certificate, key = (
        Path(each) if each else None for each in (context.tls_ca, context.tls_cert, context.tls_key)
    )
    return checked_address("the context's address", context.address), ca, certificate, key


serve.register(app)


@app.command()
def models(
    address: Address = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCertificate = None,
    tls_key: TlsKey = None,
    json: AsJson = False,
) -> None:
    """List the models that a gateway knows, with their versions and state."""
    from crossgate.cli.metadata import token_metadata
    from crossgate.cli.remote import list_models

    address, *files = _of_context(address, tls_ca, tls_cert, tls_key)
    found = list_models(address, credentials_of(*files))
    if not found and not token_metadata():
        typer.echo(
            "note: there is nothing that you may see. A gateway may show models only to who has a token: "
            "set CROSSGATE_TOKEN",
            err=True,
        )
    output.rows(("model", "version", "state", "reason"), found, as_json=json)


@app.command()
def infer(
    model: Annotated[str, typer.Argument(help="The model's name, or MODEL/VERSION or MODEL/LABEL.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME=VALUE with VALUE as JSON, @file.npy or @file.json. Without any, shows the signature."
        ),
    ] = None,
    address: Address = "",
    outputs: Annotated[
        list[str] | None, typer.Option("--output", "-o", help="An output to ask for; default all.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            help="KEY=VALUE to send along, for rules and sticky traffic; may be repeated.",
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="The deadline.", min=0.001)] = 10.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCertificate = None,
    tls_key: TlsKey = None,
    json: AsJson = False,
) -> None:
    """Send one request and print the answer."""
    from crossgate.cli.metadata import read_metadata
    from crossgate.cli.remote import infer_once

    sent = read_metadata(metadata or ())
    address, *files = _of_context(address, tls_ca, tls_cert, tls_key)
    credentials = credentials_of(*files)
    infer_once(model, inputs or [], address, credentials, tuple(outputs or ()), timeout_s, sent, as_json=json)


@app.command()
def doctor(json: AsJson = False) -> None:
    """Say which runtimes and devices this machine has, and why others are unavailable."""
    from gateway.discovery import find_devices, find_runtimes
    from gateway.frontend.choice import find_frontends

    runtimes = [(f.name, f.version or "-", f.detail) for f in find_runtimes()]
    devices = [(f.device, "yes" if f.usable else "no", f.detail) for f in find_devices()]
    front_ends = [(f.name, "yes" if f.usable else "no", f.detail) for f in find_frontends()]
    if json:
        output.as_json(
            {
                "runtimes": [dict(zip(("name", "version", "detail"), row, strict=True)) for row in runtimes],
                "devices": [dict(zip(("device", "usable", "detail"), row, strict=True)) for row in devices],
                "frontends": [
                    dict(zip(("name", "usable", "detail"), row, strict=True)) for row in front_ends
                ],
            }
        )
        return
    output.rows(("runtime", "version", "detail"), runtimes)
    output.rows(("device", "usable", "detail"), devices)
    output.rows(("front end", "usable", "detail"), front_ends)


app.command()(bench)
documents.register(app)
gateways.register(app, documents_contexts.resolve_gateway)
worker.register(app)
check.register(app)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="How long the load runs at least.", min=1, max=600)] = 8.0,
    callers: Annotated[int, typer.Option(help="Concurrent callers.", min=1, max=256)] = 32,
    keep: Annotated[Path | None, typer.Option(help="Keep the models in this directory.")] = None,
) -> None:
    """Train two classifiers, serve them on two runtimes, put load on them, add a version, kill a worker, and
    check every claim.
    """
    from crossgate.cli.demo import run_demo

    raise typer.Exit(run_demo(seconds, callers, keep))
