"""`crossgate check`: one line and an exit status, as Nagios and its relatives want them of a plugin."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from crossgate.cli.check_reading import NotMetrics, Reading, read_metrics, read_readiness
from crossgate.cli.check_verdict import Limit, State, Verdict, judge

_MOST_BYTES = 64 << 20


class _Unreachable(Exception):
    """Its message is the reason."""


class _PluginCommand(TyperCommand):
    """Wrong usage is UNKNOWN: 2 would be taken for a gateway in a critical state."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "exit_code", 0) == State.CRITICAL:  # wrong usage, whichever click typer brings
                vars(error)["exit_code"] = int(State.UNKNOWN)
            raise


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check", cls=_PluginCommand, rich_help_panel="Running gateways")(check)


def check(
    http: Annotated[str, typer.Option(help="HOST:PORT of the gateway's HTTP endpoints.")] = "127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="Look at this model alone, and want it ready.")] = "",
    warning: Annotated[
        str, typer.Option(help="Requests in a queue that warn: a number, or a share of its limit in %.")
    ] = "50%",
    critical: Annotated[str, typer.Option(help="Requests in a queue that are critical.")] = "90%",
    timeout_s: Annotated[float, typer.Option(help="How long each answer may take.", min=0.1)] = 10.0,
) -> None:
    """Check a gateway for Nagios: 0 fine, 1 warning, 2 critical, 3 unknown; one line with figures.

    No answer and not ready are critical. Queues are judged by --warning and --critical; a model or worker
    that is down, a document that is refused, a store that is away and a certificate that ends soon count too.
    """
    try:
        limits = Limit.parse("--warning", warning), Limit.parse("--critical", critical)
        verdict = _look(http, model, limits, timeout_s)
    except ValueError as error:
        verdict = Verdict(State.UNKNOWN, (str(error),), ())
    print(verdict.line())
    raise typer.Exit(int(verdict.state))


def _look(http: str, model: str, limits: tuple[Limit, Limit], timeout_s: float) -> Verdict:
    _check_address(http)
    try:
        readiness = read_readiness(_get(http, "/readyz", timeout_s))
        figures = read_metrics(_get(http, "/metrics", timeout_s).decode(errors="replace"))
    except _Unreachable as error:
        return Verdict(State.CRITICAL, (f"{http} {error}",), ())
    except NotMetrics as error:
        return Verdict(State.UNKNOWN, (f"{http} is no gateway's HTTP port: {error}",), ())
    return judge(Reading(readiness, figures), model, *limits)


def _check_address(http: str) -> None:
    host, _, port = http.rpartition(":")
    if not host or "/" in http or not (port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"--http {http}: expected HOST:PORT")


def _get(http: str, path: str, timeout_s: float) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{http}{path}", timeout=timeout_s) as reply:
            body: bytes = reply.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503:  # what is not ready says why
                raise NotMetrics(f"{path} answers with status {error.code}") from None
            body = error.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _Unreachable(f"does not answer {path}: {reason}") from None
    except HTTPException as error:  # bytes that are no HTTP
        raise NotMetrics(f"{path}: {error or type(error).__name__}") from None
    if len(body) > _MOST_BYTES:
        raise NotMetrics(f"{path} is larger than 64 MiB")
    return body
