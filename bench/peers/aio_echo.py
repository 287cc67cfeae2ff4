"""The bare grpc.aio echo: the floor of any gateway whose transport is grpcio. It runs no model."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.process import Process

if TYPE_CHECKING:
    from bench.peers.server import Counts, Placement
    from bench.samples import Work

PROGRAM = Path(__file__).parents[1] / "programs" / "aio_echo.py"


class AioEcho:
    """`mode` empty: bytes in, the same bytes out. `protobuf`: parsed with the stubs and answered with a
    message."""

    def __init__(self, mode: str = "") -> None:
        self.name = f"aio-echo:{mode}" if mode else "aio-echo"
        self.address = ""
        self._mode = mode or "bytes"
        self._process: Process | None = None

    @property
    def description(self) -> str:
        what = "parses and answers with protobuf" if self._mode == "protobuf" else "bytes in, bytes out"
        return f"bare grpc.aio handler on uvloop, {what}; no model; free"

    @property
    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("grpcio", "uvloop", "protobuf")}

    def start(self, work: Work, placement: Placement, folder: Path) -> None:
        self._process = Process(self.name, [sys.executable, "-P", str(PROGRAM), self._mode], folder)
        self.address = self._process.wait_line("ready grpc=", timeout_s=30).partition("=")[2]

    def pids(self) -> frozenset[int]:
        assert self._process is not None
        return self._process.pids()

    def fixed_answer(self, request: bytes) -> bytes | None:
        return request if self._mode == "bytes" else None

    def counts(self) -> Counts | None:
        return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
