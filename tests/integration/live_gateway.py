"""A gateway as its users run it: `crossgate serve` in a process of its own, and what can be seen of it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from crossgate import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

START_S = 40.0
STOP_S = 20.0
_READY = re.compile(r"ready grpc=(\S+) http=(\S+)")
_POLL_S = 0.02


def wait_until(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """Poll until the condition gives something true, and return that.

    Raises:
        AssertionError: it did not in time; the message has what it gave last.
    """
    until_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s; the last value was {value!r}"
        time.sleep(_POLL_S)
    return value


class LiveGateway:
    """Leaving the context ends it and its workers, by force if it must be.

    `ready` false does not wait for its line of readiness: then `grpc` and `http` are those that `arguments`
    give.
    """

    def __init__(
        self,
        models: Path,
        log: Path,
        *,
        slots: Sequence[str] = ("cpu,capacity=2",),
        arguments: Sequence[str] = ("--grpc-port=0", "--http-port=0"),
        environment: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> None:
        self._command = [sys.executable, "-P", "-m", "crossgate.cli", "serve", f"--models={models}"]
        self._command += [*(f"--slot={slot}" for slot in slots), *arguments]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        self._environment = {**inherited, **(environment or {})}
        self._log = log
        self._wait_for_ready = ready
        self._known_workers: set[int] = set()
        self.grpc = self.http = ""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self._environment
            )
        if self._wait_for_ready:
            try:
                ready = _READY.match(self._first_line())
                assert ready is not None, f"it did not become ready\n{self.log_text()[-4000:]}"
            except BaseException:
                self.__exit__()
                raise
            self.grpc, self.http = ready.groups()
        return self

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        return self.process.stdout.readline().decode() if readable else ""

    def __exit__(self, *_: object) -> None:
        workers = self._known_workers | set(self.workers().values())
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for worker in workers:
            if is_worker(worker):
                os.kill(worker, signal.SIGKILL)

    # -- the process ---

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Return the exit status once it has ended."""
        return self.process.wait(timeout_s)

    def workers(self) -> dict[str, int]:
        """Return {slot name: process id} of the workers that run now."""
        found = {}
        for parent in (self.pid, *self.processes()):
            for child in _children(parent):
                if name := _slot_of(child):
                    found[name] = child
        self._known_workers.update(found.values())
        return found

    def processes(self) -> list[int]:
        """Return the ids of the gateway processes that this one has started, in their order."""
        return [child for child in _children(self.pid) if "gateway" in _command(child)]

    def worker(self, slot: str = "") -> int:
        """Return the process id of a slot's worker, of the only one without a name."""
        workers = self.workers()
        return workers[slot] if slot else next(iter(workers.values()))

    def cpu_s(self) -> float:
        """Return the processor time that the gateway and its workers have used."""
        return sum(_cpu_s(pid) for pid in (self.pid, *self.processes(), *self.workers().values()))

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self, kind: str = "") -> int:
        """Count the open descriptors, of those whose target begins with `kind`."""
        count = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                count += os.readlink(entry).startswith(kind)
            except OSError:  # closed since it was listed
                continue
        return count

    # -- what it says ---

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """Return the records that it has logged; every line is one."""
        return [json.loads(line) for line in self.log_text().splitlines(keepends=True) if line.endswith("\n")]

    def logged(self, text: str) -> bool:
        return any(text in record["event"] for record in self.log() if "event" in record)

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an HTTP endpoint."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all series that have these labels."""
        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and all(sample.labels.get(k) == v for k, v in labels.items()):
                    total += sample.value
        return total

    def client(self, **settings: Any) -> Client:
        return Client(self.grpc, **{"retries": 0, "timeout_s": 30.0, **settings})

    def async_client(self, **settings: Any) -> AsyncClient:
        return AsyncClient(self.grpc, **{"retries": 0, "timeout_s": 30.0, **settings})

    def index(self, model: str) -> dict[str, tuple[str, str]]:
        """Return {version: (state, reason)} of a model as RepositoryIndex gives it."""
        with self.client() as client:
            return {m.version: (m.state, m.reason) for m in client.models() if m.name == model}

    def state(self, model: str, version: str) -> str:
        return self.index(model).get(version, ("", ""))[0]

    def ready_versions(self, model: str) -> list[str]:
        return [version for version, (state, _) in self.index(model).items() if state == "READY"]


def is_worker(pid: int) -> bool:
    """Whether this process is a worker that runs."""
    return bool(_slot_of(pid))


def _slot_of(pid: int) -> str:
    """Return the slot of a worker process, '' for what is none, or has ended."""
    command = _command(pid)
    return str(json.loads(command[-1])["name"]) if "workers" in command and len(command) > 1 else ""


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
