"""`crossgate bench`: put load on one model and say how it does."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path  # typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from crossgate.cli import output
from crossgate.cli.gateways_address import checked_address

if TYPE_CHECKING:
    from crossgate import Client
    from crossgate.cli.load import ClosedLoop, LoadConfig, LoadReport, LoadResult, OpenLoop, Second
    from crossgate.request import InferRequest

_DEFAULT_CONNECTIONS = 4
_PROBE_TIMEOUT_S = 30.0


class Payload(NamedTuple):
    """`note` says where the requests come from."""

    requests: list[InferRequest]
    note: str


def bench(
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name.")],
    url: Annotated[
        str,
        typer.Option("--url", "--address", "-a", envvar="CROSSGATE_ADDRESS", help="host:port or unix:/path."),
    ] = "127.0.0.1:8001",
    version: Annotated[str, typer.Option(help="A version or label; default: the gateway routes.")] = "",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="FILE.npy, or NAME=FILE.npy for each input. Default: random."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Request(s) in the protocol's HTTP form, sent in rotation.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="NAME:SIZE,SIZE of a random input with variable dimensions.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: Poisson arrivals, so many a second.", min=0.001)
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: so many in flight, over all connections; default 32.")
    ] = None,
    connections: Annotated[int | None, typer.Option(help="Default 4, or what divides --concurrency.")] = None,
    max_in_flight: Annotated[int, typer.Option(help="Open loop: the most at once.", min=1)] = 1024,
    duration: Annotated[float, typer.Option(help="Seconds that count.", min=0.1)] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before those.", min=0)] = 2.0,
    timeout_ms: Annotated[int | None, typer.Option(help="The deadline of each request.", min=1)] = None,
    cancel_share: Annotated[float, typer.Option(help="Share of requests to cancel.", min=0, max=1)] = 0.0,
    malformed_share: Annotated[
        float, typer.Option(help="Share of requests that the gateway has to refuse.", min=0, max=1)
    ] = 0.0,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, sent with each request.")] = None,
    threads: Annotated[int, typer.Option(help="Of the load generator.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The same seed, the same requests.", min=0)] = 0,
    result: Annotated[Path | None, typer.Option("--output", "-o", help="Write all figures as JSON.")] = None,
) -> None:
    """Put load on one model, without TLS; the exit code is 1 if a request ended otherwise than it should."""
    from crossgate import Client, CrossgateError
    from crossgate.cli.load import LoadConfig, LoadUnavailable, check_load_available
    from crossgate.cli.metadata import read_metadata, token_metadata
    from crossgate.cli.payloads import PayloadInvalid, malformed_of

    checked_address("--url", url)
    try:
        check_load_available()
        mode, count = _mode(rate, concurrency, connections, max_in_flight)
        headers = {**token_metadata(), **read_metadata(metadata or ())}
        with Client(url, timeout_s=_PROBE_TIMEOUT_S, metadata=headers) as client:
            payload = _payload(client, model, version, inputs or [], json, shape or [], seed)
            first = payload.requests[0]
            answered = client.infer(
                model, first.inputs, version=version, outputs=first.outputs, parameters=first.parameters
            )
    except LoadUnavailable as error:
        output.fail(f"{error}. Without it, h2load can do: see bench/README.md")
    except CrossgateError as error:
        text = str(error)
        output.fail(text if url in text else f"{url}: {text}")
    except (PayloadInvalid, ValueError, TypeError) as error:
        output.fail(str(error))
    messages = [request.to_message() for request in payload.requests]
    wrong = malformed_of(messages[0]) if malformed_share > 0 else []
    config = LoadConfig(
        target=url,
        mode=mode,
        connections=count,
        threads=threads,
        warm_up_s=warm_up,
        duration_s=duration,
        malformed_bodies=len(wrong),
        malformed_share=malformed_share,
        cancel_share=cancel_share,
        timeout_ms=timeout_ms,
        metadata=tuple(headers.items()),
        seed=seed,
    )
    print(f"{model} version {answered.version} at {url}: {payload.note}")
    done = _run(config, [*(message.SerializeToString() for message in messages), *wrong])
    if result is not None:
        try:
            result.write_text(done.json)
        except OSError as error:
            output.fail(f"--output: {error}")
    _show(done.report)
    if done.report.unexpected or done.report.warm_up.unexpected or done.report.latency_us is None:
        raise typer.Exit(1)


def _mode(
    rate: float | None, concurrency: int | None, connections: int | None, max_in_flight: int
) -> tuple[ClosedLoop | OpenLoop, int]:
    """The loop and how many connections it has. Raises ValueError."""
    from crossgate.cli.load import ClosedLoop, OpenLoop

    if rate is not None:
        if concurrency is not None:
            raise ValueError("--rate is an open loop and --concurrency a closed one: give one of them")
        return OpenLoop(rate, max_in_flight), connections or _DEFAULT_CONNECTIONS
    in_flight = 32 if concurrency is None else concurrency
    if in_flight < 1 or (connections is not None and connections < 1):
        raise ValueError("--concurrency and --connections must be at least 1")
    if connections is None:
        connections = next(n for n in range(_DEFAULT_CONNECTIONS, 0, -1) if in_flight % n == 0)
    if in_flight % connections:
        raise ValueError(f"--concurrency {in_flight} is no multiple of --connections {connections}")
    return ClosedLoop(in_flight // connections), connections


def _payload(
    client: Client,
    model: str,
    version: str,
    inputs: list[str],
    json: Path | None,
    shapes: list[str],
    seed: int,
) -> Payload:
    """Raises CrossgateError or PayloadInvalid."""
    from crossgate.cli.payloads import PayloadInvalid, at_random, describe, from_files, from_json, parse_shape
    from crossgate.request import InferRequest

    if bool(inputs) + (json is not None) + bool(shapes) > 1:
        raise PayloadInvalid("--input, --json and --shape exclude each other")
    if json is not None:
        requests = from_json(json, model, version)
        return Payload(requests, f"{len(requests)} request(s) of {json}")
    metadata = client.model_metadata(model, version)
    if inputs:
        tensors = from_files(inputs, metadata)
        note = describe(tensors)
    else:
        tensors = at_random(metadata, dict(parse_shape(text) for text in shapes), seed)
        note = f"random inputs, {describe(tensors)}"
    return Payload([InferRequest(model, tensors, version)], note)


def _run(config: LoadConfig, bodies: list[bytes]) -> LoadResult:
    from crossgate.cli.load import run_load

    live = sys.stderr.isatty()
    try:
        return run_load(config, bodies, _progress if live else None)
    except (ConnectionError, ValueError) as error:
        output.fail(str(error))
    finally:
        if live:
            with suppress(OSError):
                sys.stderr.write("\r\033[K")


def _progress(second: Second) -> None:
    """One line that is written over each second."""
    phase = "warm-up" if second.second < 0 else f"{second.second + 1:4} s"
    latency = ""
    if second.p50_us is not None and second.p99_us is not None:
        latency = f"   p50 {second.p50_us / 1e3:.2f} ms   p99 {second.p99_us / 1e3:.2f} ms"
    wrong = f"   {second.unexpected} UNEXPECTED" if second.unexpected else ""
    line = f"{phase}   {second.requests_per_s:,.0f} a second{latency}   {second.in_flight} in flight{wrong}"
    sys.stderr.write(f"\r\033[K{line}")
    sys.stderr.flush()


def _show(report: LoadReport) -> None:
    table = [("requests", f"{report.requests:,} in {report.window_s:g} s")]
    table.append(("OK a second", f"{report.requests_per_s:,.1f}"))
    if report.latency_us is not None:
        at = report.latency_us
        points = {"mean": at.mean, "p50": at.p50, "p90": at.p90, "p95": at.p95, "p99": at.p99}
        points |= {"p99.9": at.p999, "max": at.max}
        table += [(f"latency {name}", f"{value / 1e3:.3f} ms") for name, value in points.items()]
    table += [(name, f"{count:,}") for name, count in report.outcomes.items()]
    if report.malformed.sent:
        table.append(("malformed", f"{report.malformed.sent:,}, refused {report.malformed.rejected:,}"))
    if report.cancelled.sent or report.cancelled.answered_first:
        late = report.cancelled.answered_first
        table.append(("cancelled", f"{report.cancelled.sent:,}, and {late:,} were answered before"))
    if report.schedule is not None:
        behind = report.schedule
        value = (
            f"{behind.late_starts:,}; {behind.held_back:,} had no room, {behind.never_started:,} never were"
        )
        table.append(("started over 1 ms late", value))
    if report.connections.lost:
        table.append(("connections lost", f"{report.connections.lost}: {report.connections.last_failure}"))
    table.append(("unexpected", f"{report.unexpected + report.warm_up.unexpected:,}"))
    generator = report.generator
    table.append(
        (
            "load generator",
            f"{generator.cpu_us_per_request:.1f} us of CPU a request, {generator.cpu_share:.0%} of a core",
        )
    )
    output.rows(("figure", "value"), table)
    for error in report.errors:
        typer.echo(f"{error.count} x {error.outcome}: {error.message}".rstrip(": "), err=True)
