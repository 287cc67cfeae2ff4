"""Commands as operators type them. A process takes half a second to start, so that most run in this one."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from crossgate.cli.commands import app

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = (sys.executable, "-P", "-m", "crossgate.cli")
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def typed(
    *arguments: object, environment: Mapping[str, str | None] | None = None, text: str | None = None
) -> Ended:
    """Run a command to its end, here; in a thread, since the caller may be in an event loop. One at a time:
    the output and the environment are the whole process's. A variable that is None is not set.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "command") as thread:
        work = thread.submit(
            CliRunner().invoke, app, [str(each) for each in arguments], input=text, env=environment
        )
        result = work.result(_LIMIT_S)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def process(
    *arguments: object, environment: Mapping[str, str | None] | None = None, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a process of its own. A variable that is None is not set."""
    wanted = {**os.environ, **(environment or {})}
    environment = {name: value for name, value in wanted.items() if value is not None}
    command: list[Any] = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=environment, input=text
    )
