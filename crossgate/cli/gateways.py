"""Commands that ask running gateways, through their admin service."""

from __future__ import annotations

import json as json_
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossgate.cli import output
from crossgate.cli.durations import parse_duration, show_duration
from crossgate.cli.gateways_address import Resolve, gateway_here, open_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crossgate.admin import AdminClient
    from protos import admin_pb2 as pb

_PANEL = "Running gateways"
Gateway = Annotated[
    str,
    typer.Option(
        "--gateway",
        "-g",
        envvar="CROSSGATE_ADMIN",
        help="Its admin service: unix:/PATH, HOST:PORT, or the name of a gateway here. Default: the only one "
        "that runs here.",
    ),
]
TlsCa = Annotated[
    Path | None, typer.Option(help="PEM file of who has signed the gateway's certificate: turns TLS on.")
]
TlsCertificate = Annotated[Path | None, typer.Option(help="Your own certificate, PEM: turns TLS on.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer, resolve: Resolve = gateway_here) -> None:
    """Add these commands. `resolve` says which gateway is meant."""
    commands = _Commands(resolve)
    app.command("status", rich_help_panel=_PANEL)(commands.status)
    app.command("explain", rich_help_panel=_PANEL)(commands.explain)
    app.command("drain", rich_help_panel=_PANEL)(commands.drain)
    app.command("log-level", rich_help_panel=_PANEL)(commands.log_level)


@dataclass(frozen=True)
class _Commands:
    resolve: Resolve

    def status(
        self,
        models: Annotated[
            list[str] | None, typer.Argument(help="Names, or patterns such as 'digits-*'. Default: all.")
        ] = None,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again as it changes.")] = False,
        interval: Annotated[
            str, typer.Option(help="How often --watch looks at figures, such as 500ms or 5s.")
        ] = "1s",
        gateway: Gateway = "",
        tls_ca: TlsCa = None,
        tls_cert: TlsCertificate = None,
        tls_key: TlsKey = None,
        json: AsJson = False,
    ) -> None:
        """Show a gateway's state and live figures: models, versions, slots, configuration."""
        from crossgate.cli.gateways_watch import watch as show_again

        names = models or []
        interval_ms = round(_seconds("--interval", interval) * 1000)
        with self._client(gateway, tls_ca, tls_cert, tls_key) as client:
            if watch:
                show_again(client, names, interval_ms, as_json=json)
            else:
                _show(client, names, as_json=json)

    def explain(
        self,
        what: Annotated[
            str,
            typer.Argument(
                help="A model's name, MODEL/VERSION or MODEL/LABEL, or the id of a request or of its trace."
            ),
        ] = "",
        recent: Annotated[
            bool,
            typer.Option("--recent", help="List slow and failed requests of late, of WHAT model or of all."),
        ] = False,
        metadata: Annotated[
            list[str] | None,
            typer.Option("--metadata", "-m", help="KEY=VALUE that the request carries; may be repeated."),
        ] = None,
        gateway: Gateway = "",
        tls_ca: TlsCa = None,
        tls_cert: TlsCertificate = None,
        tls_key: TlsKey = None,
        json: AsJson = False,
    ) -> None:
        """Say where a request would go now, and why; or, with a request's id, why it was slow or failed.

        Fails where a request would be refused, and where nothing is known of what was asked for.
        """
        from crossgate.cli.gateways_explain import explain_lines
        from crossgate.cli.gateways_json import plain
        from crossgate.cli.gateways_requests import recent_lines, request_lines
        from crossgate.cli.metadata import read_metadata

        if not what and not recent:
            output.fail("say which model or request, or --recent")
        name, _, version = what.partition("/")
        sent = read_metadata(metadata or ())
        with self._client(gateway, tls_ca, tls_cert, tls_key) as client:
            asked = client.recent_requests(model=what) if recent else client.recent_requests(what)
            if recent:
                _show_requests(asked, recent_lines(asked), as_json=json)
                return
            answer = client.explain(name, version, sent)
        if asked:
            _show_requests(asked, (line for each in asked for line in request_lines(each)), as_json=json)
            if json or answer.failure.code == "NOT_FOUND":
                return
        if json:
            output.as_json(plain(answer))
        else:
            for line in explain_lines(what, answer):
                print(line)
        if answer.failure.code == "NOT_FOUND" and not version:
            print(
                "no slow or failed request of this id is kept, either; --recent lists those that are",
                file=sys.stderr,
            )
        if answer.HasField("failure"):
            raise typer.Exit(1)

    def drain(
        self,
        end: Annotated[bool, typer.Option("--end", help="Take requests again.")] = False,
        leave: Annotated[
            bool, typer.Option("--exit", help="End the process when all requests are answered.")
        ] = False,
        deadline_s: Annotated[
            float | None,
            typer.Option(
                help="How long requests in flight may take: this command waits for them; with --exit, those "
                "left fail then.",
                min=0,
                max=86_400,
            ),
        ] = None,
        gateway: Gateway = "",
        tls_ca: TlsCa = None,
        tls_cert: TlsCertificate = None,
        tls_key: TlsKey = None,
        json: AsJson = False,
    ) -> None:
        """Have a gateway refuse new requests, so that others take over, or take them again.

        A pool of `crossgate worker` is drained by SIGTERM to its process.
        """
        from crossgate.cli.gateways_json import plain

        if end and (leave or deadline_s is not None):
            output.fail("--end takes requests again: it goes with neither --exit nor --deadline-s")
        with self._client(gateway, tls_ca, tls_cert, tls_key) as client:
            drained = client.drain(end=end, leave=leave, deadline_s=deadline_s)
        if json:
            output.as_json(plain(drained))
        elif end:
            print("serving again")
        else:
            ends = ", and ends when they are answered" if drained.exiting else ""
            print(f"draining, {drained.in_flight} requests in flight{ends}")
        if deadline_s is not None and not leave and drained.in_flight:
            output.fail(f"{drained.in_flight} requests were not answered within {deadline_s:g} s")

    def log_level(
        self,
        level: Annotated[str, typer.Argument(help="debug, info, warning or error; inherit with --logger.")],
        for_: Annotated[
            str, typer.Option("--for", help="Afterwards it is again what it was: 90s, 10m, 1h.")
        ] = "",
        logger: Annotated[str, typer.Option(help="Only of this one, such as gateway.lifecycle.")] = "",
        gateway: Gateway = "",
        tls_ca: TlsCa = None,
        tls_cert: TlsCertificate = None,
        tls_key: TlsKey = None,
    ) -> None:
        """Change how much a gateway logs, for good or for a while."""
        for_s = _seconds("--for", for_) if for_ else None
        with self._client(gateway, tls_ca, tls_cert, tls_key) as client:
            done = client.set_log_level(level, logger, for_s)
        until = f" for {show_duration(done.reverts_in_seconds)}" if done.reverts_in_seconds else ""
        print(f"log level of {logger or 'all loggers'}: {done.level}{until}; it was {done.previous}")

    @contextmanager
    def _client(
        self, gateway: str, ca: Path | None, certificate: Path | None, key: Path | None
    ) -> Iterator[AdminClient]:
        from crossgate.errors import CrossgateError, NotOffered, Unavailable

        with open_client(self.resolve, gateway, (ca, certificate, key)) as client:
            try:
                yield client
            except Unavailable as error:
                output.fail(f"no gateway answers at {client.address}: {error.details}")
            except NotOffered:
                output.fail(
                    f"{client.address} does not offer that: it is no admin service, which `crossgate serve` "
                    "has where --admin says, or one of an older release"
                )
            except CrossgateError as error:
                output.fail(f"{client.address}: {error.details}")


def _show(client: AdminClient, names: list[str], *, as_json: bool) -> None:
    from crossgate.cli.gateways_json import plain
    from crossgate.cli.gateways_screen import print_status
    from crossgate.cli.gateways_status import status_text, unmatched_text

    pages = list(client.pages(names))
    missing = unmatched_text(pages[0])
    if pages[0].models or not missing:
        if as_json:
            whole = plain(pages[0])
            whole["models"] += [plain(model) for page in pages[1:] for model in page.models]
            del whole["next_page"]
            print(json_.dumps(whole, indent=2))
        else:
            details = len(names) == 1 and [model.model for model in pages[0].models] == names
            print_status(status_text(pages, details=details))
    if missing:
        output.fail(missing)


def _seconds(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        output.fail(f"{option}: {error}")


def _show_requests(requests: Sequence[pb.RecentRequest], lines: Iterable[str], *, as_json: bool) -> None:
    from crossgate.cli.gateways_json import plain

    if as_json:
        output.as_json([plain(each) for each in requests])
    else:
        print("\n".join(lines) or "no request was slow or failed of late")
