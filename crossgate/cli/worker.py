"""`crossgate worker`: a pool of workers without a gateway, for gateways here and on other machines."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossgate.cli import output

if TYPE_CHECKING:
    from gateway.frontend.listening import Tls
    from gateway.poolserver.server import PoolReady
    from gateway.poolserver.settings import PoolSettings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings={"auto_envvar_prefix": "CROSSGATE_WORKER"})(worker)


def worker(
    store: Annotated[
        str,
        typer.Option(
            help="Where gateways find this pool: etcd://host:2379/prefix, or a file's path.",
            envvar="CROSSGATE_STORE",
        ),
    ],
    listen: Annotated[
        str, typer.Option(help="unix:/path for gateways on this machine, grpc://host:port for others too.")
    ],
    slot: Annotated[
        list[str] | None,
        typer.Option(
            help="DEVICE[,cpus=LIST][,capacity=N][,memory=SIZE], such as cuda:0. Default: what is found."
        ),
    ] = None,
    node: Annotated[str, typer.Option(help="This machine's name in documents; default its host name.")] = "",
    advertise: Annotated[
        str,
        typer.Option(help="The host:port that gateways connect to, where it is not the one of --listen."),
    ] = "",
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain of this pool.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Who has signed the certificates of gateways, PEM.")
    ] = None,
    identity: Annotated[
        str,
        typer.Option(help="The name in the certificate that gateways are to expect; default its first."),
    ] = "",
    allow_gateway: Annotated[
        list[str] | None,
        typer.Option(help="A name in the certificate of a gateway that may connect; may be repeated."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen to other machines without TLS, and let anybody in.")
    ] = False,
    grace_s: Annotated[
        float, typer.Option(help="How long models stay loaded without a gateway.", min=0)
    ] = 30.0,
    drain_s: Annotated[float, typer.Option(help="How long batches may take after SIGTERM.", min=0)] = 30.0,
    arena_mib: Annotated[
        int, typer.Option(help="The shared memory of one link; larger tensors get their own.", min=1)
    ] = 16,
    arena_budget_mib: Annotated[
        int, typer.Option(help="The limit for tensors that get memory of their own.", min=1)
    ] = 256,
    pool_folder: Annotated[
        Path | None,
        typer.Option(help="For the workers' sockets: a pool that starts again finds its workers there."),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run workers for gateways elsewhere until SIGTERM, registered in the store."""
    from gateway.config.keys import is_name
    from gateway.poolserver.settings import PoolSettings

    node = node or socket.gethostname()
    if not is_name(node):
        output.fail(f"--node {node!r}: expected letters, digits, dots, dashes and underscores, 100 at most")
    if log_level not in ("debug", "info", "warning", "error"):
        output.fail(f"--log-level {log_level!r} is none of debug, info, warning, error")
    slots = tuple(slot or ())
    if repeated := sorted({each for each in slots if slots.count(each) > 1}):
        output.fail(f"--slot {repeated[0]} is given twice; a slot has one worker and a `capacity`")
    _serve(
        PoolSettings(
            store=store,
            listen=listen,
            node=node,
            slots=slots,
            advertise=advertise,
            tls=_tls(tls_cert, tls_key, tls_client_ca),
            identity=identity,
            allowed_gateways=frozenset(allow_gateway or ()),
            insecure=insecure,
            grace_s=grace_s,
            drain_s=drain_s,
            segment_bytes=arena_mib << 20,
            budget_bytes=arena_budget_mib << 20,
            folder=pool_folder,
            log_level=log_level,
        )
    )


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    from gateway.frontend.listening import Tls

    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None or client_ca is None:
        output.fail("--tls-cert, --tls-key and --tls-client-ca belong together: both sides show who they are")
    return Tls(certificate, key, client_ca)


def _serve(settings: PoolSettings) -> None:
    from gateway.poolserver.server import CANNOT_START, serve

    try:
        serve(settings, _announce)
    except CANNOT_START as error:
        output.fail(str(error))


def _announce(ready: PoolReady) -> None:
    print(ready, flush=True)
