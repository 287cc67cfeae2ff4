"""A gateway started by this process, as its child: for the demonstration."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.eE+-]+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_STOP_S = 40.0


class GatewayFailed(Exception):
    """The gateway did not start; its log says why."""


class GatewayProcess:
    """`crossgate serve` on free ports, from `__enter__` to `__exit__`. Its log goes to `log`."""

    def __init__(self, models: Path, slots: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", "--models", str(models)]
        self._command += ["--grpc-port", "0", "--http-port", "0", *(f"--slot={slot}" for slot in slots)]
        self._log = log
        self.grpc = self.http = ""

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None, "stdout is a pipe"
        for line in self._process.stdout:
            if line.startswith("ready "):
                fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
                self.grpc, self.http = fields["grpc"], fields["http"]
                return self
        raise GatewayFailed(f"the gateway did not start; its log:\n{self._log.read_text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def workers(self) -> dict[str, int]:
        """Return {slot name: process id} of the gateway's workers."""
        found = {}
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            if "workers" in command:
                name = re.search(r'"name": "([^"]*)"', command[-2])
                if name is not None:
                    found[name.group(1)] = int(child)
        return found

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """Return the gateway's samples: (name, labels, value)."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5) as response:
            text = response.read().decode()
        samples = []
        for line in text.splitlines():
            match = _SAMPLE.match(line)
            if match:
                samples.append(
                    (match.group(1), dict(_LABEL.findall(match.group(2) or "")), float(match.group(3)))
                )
        return samples

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all series with these labels."""
        return sum(
            value
            for sample, there, value in self.metrics()
            if sample == name and all(there.get(k) == v for k, v in labels.items())
        )
