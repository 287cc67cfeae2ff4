"""`crossgate status --watch`: the state as it changes, until the user or the gateway ends it."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from crossgate.cli import output
from crossgate.cli.gateways_json import plain
from crossgate.cli.gateways_screen import print_status, screen
from crossgate.cli.gateways_status import status_text, unmatched_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crossgate.admin import AdminClient
    from protos import admin_pb2 as pb

_MAX_MODELS = 1000


def watch(client: AdminClient, models: Sequence[str], interval_ms: int, *, as_json: bool) -> None:
    """Show the state again and again; one JSON object a line with `as_json`. Returns when the user interrupts
    it.

    Raises:
        CrossgateError: the gateway does not answer, or not any more.
    """
    live = sys.stdout.isatty() and not as_json
    pages = client.watch(models, limit=_screenful() if live else _MAX_MODELS, interval_ms=interval_ms)
    try:
        with closing(pages):
            if live:
                _refresh(pages, models)
                return
            for page in _checked(pages, models):
                if as_json:
                    print(json.dumps(plain(page)), flush=True)
                else:
                    print_status(status_text([page]))
                    print(flush=True)
    except KeyboardInterrupt:
        return


def _refresh(pages: Iterator[pb.StatusResponse], models: Sequence[str]) -> None:
    from rich.live import Live

    with Live(screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for page in _checked(pages, models):
            live.update(screen(status_text([page]), live.console.width), refresh=True)


def _checked(pages: Iterator[pb.StatusResponse], models: Sequence[str]) -> Iterator[pb.StatusResponse]:
    """Names that are wrong at the start are the user's mistake; a model that goes later is news."""
    for i, page in enumerate(pages):
        if i == 0 and models and not page.models:
            output.fail(unmatched_text(page))
        yield page


def _screenful() -> int:
    from rich.console import Console

    return min(max(Console().height, 10), _MAX_MODELS)
