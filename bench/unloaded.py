"""What Crossgate costs and takes when nobody calls it: CPU while idle, time until ready."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.cpu import cpu_seconds, used_between
from bench.endpoint import Endpoint
from bench.models import place
from bench.peers.crossgate import CrossgateProcess, Mode, write_document
from bench.peers.process import StartFailed
from bench.results import Unloaded
from bench.sampler import check
from bench.samples import prepare
from bench.scenario import IDENTITY, Scenario

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers.server import Placement

IDLE_AT_MOST_PERCENT = 0.5
READY_AT_MOST_S = 3.0
SETTLE_S = 3.0


def measure_idle(
    name: str, placement: Placement, seconds: float, rounds: int, cache: Path, folder: Path
) -> Unloaded:
    """CPU of gateway and two workers, percent of one core, in windows of `seconds` once all is settled."""
    mode = Mode.parse(name.partition(":")[2])
    place(IDENTITY, cache, folder / "models")
    write_document(IDENTITY, folder / "models", placement.threads, count=2)  # one on each slot
    slots = (f"cpu:{placement.load_cpu}", f"cpu:{placement.model_cpu}")
    values, gateway = [], []
    try:
        process = CrossgateProcess(name, folder / "models", slots, folder, mode)
    except StartFailed as error:
        return Unloaded("idle", name, "%", (), IDLE_AT_MOST_PERCENT, {}, str(error))
    try:
        time.sleep(SETTLE_S)
        pids = process.pids()
        if len(pids) != 3:
            return Unloaded(
                "idle",
                name,
                "%",
                (),
                IDLE_AT_MOST_PERCENT,
                {},
                f"{len(pids)} processes, not a gateway and two workers",
            )
        for _ in range(rounds):
            start_s, before = time.monotonic(), cpu_seconds(pids)
            time.sleep(seconds)
            elapsed_s, after = time.monotonic() - start_s, cpu_seconds(pids)
            values.append(sum(used_between(before, after)) / elapsed_s * 100)
            gateway.append((after[process.pid] - before[process.pid]) / elapsed_s * 100)
    finally:
        process.stop()
    details = {
        "gateway_percent": sorted(gateway)[len(gateway) // 2],
        "processes": len(pids),
        "window_s": seconds,
    }
    return Unloaded("idle", name, "%", tuple(values), IDLE_AT_MOST_PERCENT, details)


def measure_ready(name: str, placement: Placement, rounds: int, cache: Path, folder: Path) -> Unloaded:
    """Seconds from the start of the process to the line that says ready, and on to the first right answer."""
    mode = Mode.parse(name.partition(":")[2])
    place(IDENTITY, cache, folder / "models")
    write_document(IDENTITY, folder / "models", placement.threads)
    work = prepare(Scenario("ready", IDENTITY, connections=1, streams=1), folder / "models")
    ready, answered = [], []
    for _ in range(rounds):
        start_s = time.monotonic()
        try:
            slots = (f"cpu:{placement.model_cpu}",)
            process = CrossgateProcess(name, folder / "models", slots, folder, mode)
        except StartFailed as error:
            return Unloaded("ready", name, "s", (), READY_AT_MOST_S, {}, str(error))
        try:
            ready.append(time.monotonic() - start_s)
            with Endpoint(process.address) as endpoint:
                wrong = check(endpoint, work.samples[0], work)
            if wrong:
                return Unloaded("ready", name, "s", (), READY_AT_MOST_S, {}, wrong)
            answered.append(time.monotonic() - start_s)
        finally:
            process.stop()
    details = {"first_answer_s": sorted(answered)[len(answered) // 2]}
    return Unloaded("ready", name, "s", tuple(ready), READY_AT_MOST_S, details)
