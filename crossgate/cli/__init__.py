"""The command line. Needs the extra `server`; the client alone does not."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Entry point of the `crossgate` command."""
    # gRPC's core reads it when it is loaded; its lines are neither JSON nor for operators
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from crossgate.cli.commands import app
    except ImportError as error:
        raise SystemExit(
            f"the command line needs more than the client: {error}; pip install 'crossgate[server]'"
        ) from error
    if not sys.flags.safe_path and "" in sys.path:
        sys.path.remove("")
    # what is printed before something is waited for is seen before it, through a pipe too
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    app()
