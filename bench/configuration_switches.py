"""A hundred new versions, one after the other, under load: each is loaded beside the one that serves, then
takes its place in one commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.configuration_changes import Quantiles, flaws, latencies_ms
from bench.configuration_load import SHARE, Background, Target, find_peak
from bench.configuration_outcome import Figure, Outcome
from bench.configuration_place import NAME_IN_STORE, Etcd, Gateway, Versions
from bench.configuration_prober import Prober, Probing
from bench.configuration_setting import PROBE_INTERVAL_MS, Operator
from bench.cpu import usage
from bench.load import LoadFailed
from bench.validity import shortened
from gateway.config.store.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.configuration_changes import Change
    from bench.configuration_setting import Setting
    from gateway.config.status import ModelReport

NAME = "version-switches"
MODEL = "times"
SWITCHES = 100
READY_S = 30.0
SEEN_S = 0.05  # after it was applied, so that no switch is over before it was asked about


async def measure(setting: Setting) -> Outcome:
    """Raises StartFailed, LoadFailed and StoreError."""
    versions = Versions(setting.folder / "versions")
    with Etcd(setting.folder / "etcd") as etcd:
        async with open_store(etcd.url) as store:
            operator = Operator(store, MODEL)
            await operator.write("first", versions.document(MODEL, (1, 2), {1: 1}))
            with Gateway(etcd.url, setting.folder / "gateway", setting.placement.model_cpu) as gateway:
                target = Target(gateway.address, MODEL, setting.placement.load_cpu)
                peak = await asyncio.to_thread(find_peak, target)
                setting.say(f"{NAME}: peak {peak:,.0f}/s; load at {SHARE:.0%} of it")
                before = usage()
                probing = Probing(gateway.address, MODEL, PROBE_INTERVAL_MS, setting.folder / "probes.json")
                with Prober(probing) as prober:
                    async with Background(target, SHARE * peak) as load:
                        switches = [
                            await _switch(operator, versions, version) for version in range(1, SWITCHES + 1)
                        ]
                others = before.others_share(usage())
    probes = prober.probes
    found = [each for each in latencies_ms(switches, probes) if each is not None]
    seen = {probe.revision for probe in probes}
    failures = [f"a probe failed: {probe.error}" for probe in probes if probe.error]
    mismatched = flaws(operator.changes, [probe for probe in probes if not probe.error])
    wrong = [*load.wrong, *failures]
    if missing := sum(switch.revision not in seen for switch in switches):
        wrong.append(f"{missing} of {SWITCHES} switches were over before they were asked about")
    quantiles = Quantiles.of(found)
    failed = load.failed + len(failures)
    return Outcome(
        NAME,
        f"{SWITCHES} switches to a version that was loaded beside the one before, load at {SHARE:.0%} of a "
        f"peak of {peak:,.0f}/s ({load.requests:,} requests), {len(probes):,} answers looked at: the version "
        "that each names, and that its values are of, is that of the document of its revision",
        (
            Figure("failed requests", float(failed), "", 0),
            Figure("answers of another version than their revision's", float(len(mismatched)), "", 0),
            Figure("commit to answer, p99", None if quantiles is None else quantiles.p99, "ms"),
        ),
        shortened(wrong),
        others,
        {
            "peak_per_s": peak,
            "latencies_ms": found,
            "requests": load.requests,
            "probes": len(probes),
            "mismatched": mismatched,
        },
    )


async def _switch(operator: Operator, versions: Versions, version: int) -> Change:
    """Route to the next version once it is ready; then let the one before go, and get the one after."""
    following = version + 1
    await _until(operator, lambda report: _is_ready(report, following), f"version {following} was not ready")
    change = await operator.write("switch", versions.document(MODEL, (version, following), {following: 1}))
    await _until(operator, lambda report: report.applied >= change.revision, "a switch was not applied")
    await asyncio.sleep(SEEN_S)
    await operator.write("prepare", versions.document(MODEL, (following, following + 1), {following: 1}))
    return change


def _is_ready(report: ModelReport, version: int) -> bool:
    told = report.versions.get(str(version))
    return told is not None and told.state == "READY"


async def _until(operator: Operator, condition: Callable[[ModelReport], bool], otherwise: str) -> None:
    """Wait for what the gateway reports. Raises LoadFailed."""
    try:
        async with asyncio.timeout(READY_S):
            while (report := await operator.reported(NAME_IN_STORE)) is None or not condition(report):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise LoadFailed(f"{otherwise} after {READY_S:g} s") from None
