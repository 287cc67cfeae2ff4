"""`crossgate demo`: train, serve on two runtimes, load, roll out a version, kill a worker, and check every
claim that is printed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossgate.cli import output
from crossgate.cli.gateway_process import GatewayFailed, GatewayProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from crossgate.cli.demo_load import DigitsLoad
    from crossgate.cli.demo_models import Classifier, DigitsData

_STEP_LIMIT_S = 60.0
_NEW_VERSION_REQUESTS = 1000
_DEVICE_SHARE = 0.2


class Claim(NamedTuple):
    text: str
    holds: bool


class StepTimedOut(Exception):
    """Something that was to happen did not within the limit."""


def run_demo(seconds: float, callers: int, keep: Path | None) -> int:
    """Run the demonstration; return 0 when every claim holds."""
    try:
        from crossgate.cli.demo_models import train, write_document, write_version
    except ImportError as error:
        output.fail(f"the demo needs its extra: {error}; pip install 'crossgate[demo]'")
    began = time.monotonic()
    _say("training two classifiers on scikit-learn's digits, exporting them to ONNX")
    try:
        data, classifiers = train()
    except ImportError as error:
        output.fail(f"the demo needs its extra: {error}; pip install 'crossgate[demo]'")
    with (
        nullcontext(str(keep))
        if keep is not None
        else tempfile.TemporaryDirectory(prefix="crossgate-demo-") as root
    ):
        models, log = Path(root) / "models", Path(root) / "gateway.log"
        write_document(models)
        write_version(models, "1", classifiers[0].onnx)
        cpus = sorted(os.sched_getaffinity(0))
        slots = (f"cpu:{cpus[0]}", f"openvino:CPU,cpus={cpus[-1]}")
        _say(f"version 1 is {classifiers[0].name}; starting the gateway with the slots {' and '.join(slots)}")
        try:
            with GatewayProcess(models, slots, log) as gateway:
                _say(f"serving on {gateway.grpc}, metrics on http://{gateway.http}/metrics")
                claims = asyncio.run(
                    _run(
                        gateway,
                        data,
                        classifiers,
                        seconds,
                        callers,
                        lambda: write_version(models, "2", classifiers[1].onnx),
                    )
                )
            claims.append(Claim("the gateway drained and exited with status 0", gateway.exit_status == 0))
        except (GatewayFailed, StepTimedOut) as error:
            output.fail(f"{error}\n{log.read_text()[-2000:] if log.is_file() else ''}")
    for claim in claims:
        print(f"{'ok    ' if claim.holds else 'FAILED'}  {claim.text}")
    _say(f"done in {time.monotonic() - began:.0f} s")
    return 0 if all(claim.holds for claim in claims) else 1


async def _run(
    gateway: GatewayProcess,
    data: DigitsData,
    classifiers: list[Classifier],
    seconds: float,
    callers: int,
    add_version: Callable[[], None],
) -> list[Claim]:
    from crossgate.cli.demo_load import DigitsLoad

    expected = {str(i + 1): classifier.predictions for i, classifier in enumerate(classifiers)}
    load = DigitsLoad(gateway.grpc, data, expected, callers)
    running = asyncio.create_task(load.run())
    began = time.monotonic()
    try:
        with _Progress(load, seconds) as progress:
            await progress.until(lambda: load.served["1"] >= 500, "version 1 to serve 500 requests")
            progress.note(f"adding version 2, {classifiers[1].name}, while the load runs")
            add_version()
            await progress.until(lambda: load.served["2"] > 0, "version 2 to take traffic")
            victim = await _kill_busy_worker(gateway, progress)
            await progress.until(
                lambda: load.served["2"] >= _NEW_VERSION_REQUESTS and time.monotonic() - began >= seconds,
                "version 2 to serve 1,000 requests",
            )
            shares: dict[str, float] = {}

            def balanced() -> bool:
                shares.update(_device_shares(gateway))
                return len(shares) == 2 and min(shares.values()) >= _DEVICE_SHARE

            await progress.until(balanced, "each device to have its share", every_s=0.5)
    finally:
        load.stop()
        await running
    took_s = time.monotonic() - began
    return _report(gateway, load, data, classifiers, victim, took_s)


async def _kill_busy_worker(gateway: GatewayProcess, progress: _Progress) -> str:
    """SIGKILL a worker while it holds at least one batch: freeze it, see that a batch is on it, kill it."""
    name, pid = next(iter(gateway.workers().items()))
    os.kill(pid, signal.SIGSTOP)

    def holds_a_batch() -> bool:
        return gateway.total("crossgate_batches_in_flight", worker=name) >= 1

    try:
        await progress.until(holds_a_batch, f"a batch to be in flight on {name}", every_s=0.02)
    finally:
        os.kill(pid, signal.SIGKILL)
    progress.note(f"killed worker {name} (pid {pid}) with SIGKILL while a batch was in flight on it")
    return name


def _device_shares(gateway: GatewayProcess) -> dict[str, float]:
    """Return {device: its share of the requests}."""
    rows: dict[str, float] = {}
    for name, labels, value in gateway.metrics():
        if name == "crossgate_batch_size_sum":
            rows[labels["device"]] = rows.get(labels["device"], 0) + value
    total = sum(rows.values()) or 1
    return {device: count / total for device, count in rows.items()}


def _report(
    gateway: GatewayProcess,
    load: DigitsLoad,
    data: DigitsData,
    classifiers: list[Classifier],
    victim: str,
    took_s: float,
) -> list[Claim]:
    """Print the table and return what was claimed."""
    requests = sum(load.served.values())
    reruns = int(gateway.total("crossgate_reruns_total"))
    rows, batches = gateway.total("crossgate_batch_size_sum"), gateway.total("crossgate_batch_size_count")
    p50, p99 = np.percentile(np.array(load.latencies_s) * 1000, (50, 99))
    table = [
        ("requests", f"{requests:,} in {took_s:.1f} s, {requests / took_s:,.0f} a second"),
        ("failures", str(len(load.failures))),
        ("requests run again", f"{reruns} (worker {victim} was killed)"),
    ]
    accuracies = []
    for i, classifier in enumerate(classifiers):
        version = str(i + 1)
        original = float(np.mean(classifier.predictions == data.labels))
        through = load.right[version] / max(load.served[version], 1)
        accuracies.append((through, original))
        table.append(
            (
                f"version {version}, {classifier.name}",
                f"{load.served[version]:,} requests, accuracy {through:.1%}, original {original:.1%}",
            )
        )
    table.append(("predictions unlike the original's", str(load.differing)))
    shares = _device_shares(gateway)
    for device, share in sorted(shares.items()):
        table.append((f"device {device}", f"{share:.0%} of the requests"))
    table.append(("mean batch", f"{rows / max(batches, 1):.1f}"))
    table.append(("latency", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"))
    output.rows(("", "measured"), table)
    for failure in sorted(set(load.failures))[:5]:
        print(f"failure: {failure}", file=sys.stderr)
    return [
        Claim("no request failed", not load.failures),
        Claim("requests of the killed worker's batches were run again", reruns > 0),
        Claim("every prediction is the original model's", load.differing == 0),
        Claim(
            f"version 2 served {_NEW_VERSION_REQUESTS:,} requests", load.served["2"] >= _NEW_VERSION_REQUESTS
        ),
        Claim(
            f"each device served at least {_DEVICE_SHARE:.0%}",
            len(shares) == 2 and min(shares.values()) >= _DEVICE_SHARE,
        ),
    ]


class _Progress:
    """Shows how the load goes while waiting for conditions: a bar on a terminal, notes elsewhere."""

    def __init__(self, load: DigitsLoad, seconds: float) -> None:
        self._load = load
        self._seconds = seconds
        self._bar: Any = None
        self._began = time.monotonic()

    def __enter__(self) -> _Progress:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("load"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("load", total=self._seconds, state="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            _say(text)

    async def until(self, condition: Callable[[], bool], what: str, every_s: float = 0.05) -> None:
        """Wait for a condition.

        Raises:
            StepTimedOut: it did not come true.
        """
        deadline = time.monotonic() + _STEP_LIMIT_S
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                raise StepTimedOut(f"waited {_STEP_LIMIT_S:.0f} s for {what}")
            if self._bar is not None:
                served = self._load.served
                state = (
                    "  ".join(f"v{v}: {n:,}" for v, n in sorted(served.items()))
                    + f"  failed: {len(self._load.failures)}"
                )
                elapsed = min(time.monotonic() - self._began, self._seconds)
                self._bar.update(self._task, completed=elapsed, state=state)
            await asyncio.sleep(every_s)


def _say(text: str) -> None:
    print(text, flush=True)
