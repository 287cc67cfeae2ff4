"""`crossgate serve`: a gateway in this process, or several that share a port."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossgate.cli import output

if TYPE_CHECKING:
    from gateway.control import Ready
    from gateway.settings import GatewaySettings


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(context_settings={"auto_envvar_prefix": "CROSSGATE_SERVE"})(serve)


def serve(
    models: Annotated[
        Path | None,
        typer.Option(
            help="A directory laid out as MODEL/VERSION/model.onnx (or .xml), with optional MODEL/model.yaml."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Instead of --models: etcd://host:2379,host2:2379/prefix, or the path of a local store.",
            envvar="CROSSGATE_STORE",
        ),
    ] = None,
    slot: Annotated[
        list[str] | None,
        typer.Option(
            help="DEVICE[,cpus=LIST][,capacity=N][,memory=SIZE], such as cpu:0-3; none for no workers here. "
            "Default: what is found."
        ),
    ] = None,
    cpus: Annotated[
        str, typer.Option(help="Processors for the gateway itself, such as 0 or 0-3; default all.")
    ] = "",
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8001,
    http_port: Annotated[
        int, typer.Option(help="For /healthz, /readyz and /metrics; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    max_message_mib: Annotated[
        int, typer.Option(help="The limit of one message, both ways.", min=1, max=2047)
    ] = 64,
    max_held_mib: Annotated[
        int, typer.Option(help="What all requests in the gateway may hold together.", min=1)
    ] = 1024,
    arena_mib: Annotated[
        int, typer.Option(help="The shared memory towards one worker; larger tensors get their own.", min=1)
    ] = 16,
    arena_budget_mib: Annotated[
        int, typer.Option(help="The limit for tensors that get memory of their own.", min=1)
    ] = 256,
    drain_s: Annotated[
        float, typer.Option(help="How long in-flight requests may take after SIGTERM.", min=0)
    ] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    trace_ratio: Annotated[
        float,
        typer.Option(
            help="Share of requests traced, where OTEL_EXPORTER_OTLP_ENDPOINT is set.", min=0, max=1
        ),
    ] = 0.01,
    triton_metrics: Annotated[
        bool, typer.Option(help="Expose metrics under Triton's names too.", show_default=False)
    ] = False,
    frontend: Annotated[
        str, typer.Option(help="native, grpcio (in Python), or auto: native where it was built.")
    ] = "auto",
    grpc_unix: Annotated[
        Path | None, typer.Option(help="A Unix socket for gRPC, beside the TCP port and without TLS.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="PEM certificate chain for the gRPC port; a replaced file is taken up."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Ask clients for a certificate that this CA has signed.")
    ] = None,
    max_concurrent_streams: Annotated[
        int, typer.Option(help="The limit of one connection.", min=1, max=2**31 - 1)
    ] = 1024,
    max_connection_age_s: Annotated[
        float, typer.Option(help="Ask older connections to go and come again; 0 never.", min=0)
    ] = 0.0,
    keepalive_s: Annotated[
        float, typer.Option(help="Ping a client that has been silent for so long; 0 never.", min=0)
    ] = 60.0,
    keepalive_timeout_s: Annotated[
        float, typer.Option(help="Close the connection that does not answer a ping.", min=0.001)
    ] = 20.0,
    processes: Annotated[
        int,
        typer.Option(
            help="Gateway processes that share the port and the workers; HTTP ports follow each other.", min=1
        ),
    ] = 1,
    pool_folder: Annotated[
        Path | None,
        typer.Option(
            help="For the workers' sockets: a gateway that starts again within 2 s finds its workers there."
        ),
    ] = None,
    node: Annotated[str, typer.Option(help="This machine's name in documents; default the host's.")] = "",
    name: Annotated[str, typer.Option(help="This gateway's name in the store; default NODE-HTTPPORT.")] = "",
    state_folder: Annotated[
        Path | None,
        typer.Option(help="Where a store's last good state is kept; default ~/.local/state/crossgate."),
    ] = None,
    admin: Annotated[
        str,
        typer.Option(
            help="Where `crossgate status` reaches this gateway: unix:/path, host:port or off; default a "
            "socket of the gateway's name."
        ),
    ] = "",
    admin_tls_cert: Annotated[
        Path | None, typer.Option(help="PEM certificate chain of the admin service on TCP.")
    ] = None,
    admin_tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    admin_tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Who has signed the certificates of operators; beyond loopback it is needed."),
    ] = None,
    worker_ca: Annotated[
        Path | None, typer.Option(help="PEM file of who has signed the certificates of pools elsewhere.")
    ] = None,
    worker_cert: Annotated[
        Path | None, typer.Option(help="This gateway's certificate towards pools, PEM.")
    ] = None,
    worker_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    worker_identity: Annotated[
        list[str] | None,
        typer.Option(help="A name that a pool's certificate may have; others are not connected to."),
    ] = None,
    insecure_workers: Annotated[
        bool, typer.Option(help="Connect to pools on other machines without TLS.")
    ] = False,
) -> None:
    """Serve a directory of models, or what a store says, until SIGTERM; SIGUSR2 restarts in place."""
    from gateway.settings import FRONT_ENDS, GatewaySettings

    if log_level not in ("debug", "info", "warning", "error"):
        output.fail(f"--log-level {log_level!r} is none of debug, info, warning, error")
    if frontend not in FRONT_ENDS:
        output.fail(f"--frontend {frontend!r} is none of {', '.join(FRONT_ENDS)}")
    if (tls_cert is None) != (tls_key is None) or (tls_client_ca is not None and tls_cert is None):
        output.fail("--tls-cert and --tls-key belong together, and --tls-client-ca needs both")
    if (admin_tls_cert is None) != (admin_tls_key is None) or (admin_tls_client_ca and not admin_tls_cert):
        output.fail("--admin-tls-cert and --admin-tls-key belong together, and the client CA needs both")
    slots = tuple(slot or ())
    if repeated := sorted({each for each in slots if slots.count(each) > 1}):
        output.fail(f"--slot {repeated[0]} is given twice; a slot has one worker and a `capacity`")
    if models is not None and store == os.environ.get("CROSSGATE_STORE"):
        store = None  # what is said here wins over what is said for all commands
    if models is not None and store is not None:
        output.fail("--models and --store exclude each other: models come from one of them")
    if models is None and store is None:
        output.fail("where do the models come from? --models DIR, or --store URL")
    settings = GatewaySettings(
        models=models,
        store=store,
        slots=slots,
        cpus=_cpus(cpus),
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        max_message_bytes=max_message_mib << 20,
        max_held_bytes=max_held_mib << 20,
        drain_s=drain_s,
        segment_bytes=arena_mib << 20,
        budget_bytes=arena_budget_mib << 20,
        log_level=log_level,
        trace_ratio=trace_ratio,
        triton_metrics=triton_metrics,
        frontend=frontend,
        grpc_unix=str(grpc_unix) if grpc_unix is not None else None,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        max_concurrent_streams=max_concurrent_streams,
        max_connection_age_s=max_connection_age_s,
        keepalive_s=keepalive_s,
        keepalive_timeout_s=keepalive_timeout_s,
        processes=processes,
        pool_folder=pool_folder,
        node=node,
        name=name,
        state_folder=state_folder,
        admin=admin,
        admin_tls_certificate=admin_tls_cert,
        admin_tls_key=admin_tls_key,
        admin_tls_client_ca=admin_tls_client_ca,
        worker_ca=worker_ca,
        worker_certificate=worker_cert,
        worker_key=worker_key,
        worker_identities=tuple(worker_identity or ()),
        insecure_workers=insecure_workers,
    )
    (_serve_alone if processes == 1 else _serve_together)(settings)


def _serve_alone(settings: GatewaySettings) -> None:
    from gateway.app import CANNOT_START
    from gateway.app import serve as run

    try:
        run(settings, _announce)
    except CANNOT_START as error:
        output.fail(str(error))
    except ExceptionGroup as group:
        known, others = group.split(CANNOT_START)
        if known is None or others is not None:
            raise
        cause: BaseException = known
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        output.fail(str(cause))


def _serve_together(settings: GatewaySettings) -> None:
    from gateway.child import ChildFailed
    from gateway.supervisor import supervise
    from gateway.workerpool.rendezvous import FolderUnsafe

    if settings.frontend == "grpcio":
        output.fail(f"--processes {settings.processes} needs the native front end")
    try:
        status = supervise(settings, _announce)
    except (ChildFailed, FolderUnsafe, OSError) as error:
        output.fail(str(error))
    raise typer.Exit(status)


def _announce(ready: Ready) -> None:
    print(ready, flush=True)


def _cpus(text: str) -> tuple[int, ...]:
    """Read the option `--cpus`."""

    from gateway.workerpool.slot import cpu_list

    if not text:
        return ()
    try:
        cpus = cpu_list(text)
    except ValueError:
        output.fail(f"--cpus {text!r} is no list such as 0-3,6")
    missing = set(cpus) - os.sched_getaffinity(0)
    if missing:
        output.fail(f"--cpus {text!r}: CPU {min(missing)} is not there")
    return cpus
