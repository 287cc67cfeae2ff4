"""A gateway as its users run it: a process, started by the command line."""

from __future__ import annotations

import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_START_S: Final = 30.0
_STOP_S: Final = 10.0
_READY = re.compile(r"ready grpc=(\S+) http=(\S+)")


class GatewayNotReady(Exception):
    """It ended or took too long; the message has its log."""


class GatewayProcess:
    """`grpc` and `http` are its addresses; leaving the context ends it, by force if it must be."""

    def __init__(self, models: Path, log: Path, *arguments: str) -> None:
        self._command = [
            *(sys.executable, "-P", "-m", "crossgate.cli", "serve", "--models", str(models)),
            *("--grpc-port", "0", "--http-port", "0"),
            *arguments,
        ]
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        try:
            ready = _READY.match(self._first_line(time.monotonic() + _START_S))
            if ready is None:
                raise GatewayNotReady(f"it did not become ready\n{self.log()}")
        except BaseException:
            self.__exit__()
            raise
        self.grpc, self.http = ready.groups()
        return self

    def _first_line(self, until_s: float) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], until_s - time.monotonic())
        return self.process.stdout.readline().decode() if readable else ""

    def wait_for_models(self, models: Sequence[str]) -> None:
        """Return when all of them serve.

        Raises:
            GatewayNotReady
        """
        until_s = time.monotonic() + _START_S
        with grpc.insecure_channel(self.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for model in models:
                request = health_pb2.HealthCheckRequest(service=model)
                watch = health.Watch(request, timeout=max(until_s - time.monotonic(), 0.1))
                try:
                    for response in watch:
                        if response.status == health_pb2.HealthCheckResponse.SERVING:
                            break
                except grpc.RpcError as error:
                    raise GatewayNotReady(f"model {model} did not become ready\n{self.log()}") from error
                finally:
                    watch.cancel()

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self.process.terminate()

    def wait(self, timeout_s: float) -> int:
        """Return its exit status once it has ended."""
        return self.process.wait(timeout_s)

    def log(self, from_byte: int = 0) -> str:
        return self._log.read_bytes()[from_byte:][-20_000:].decode(errors="replace")

    @property
    def log_size_bytes(self) -> int:
        return self._log.stat().st_size

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()
