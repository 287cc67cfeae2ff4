"""etcd is killed under load and comes back: what it costs requests, and how soon changes act again.

After the long outage come short ones, since how soon a gateway tries again depends on chance.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.configuration_changes import flaws, latencies_ms
from bench.configuration_load import SHARE, Background, Target, find_peak
from bench.configuration_outcome import Figure, Outcome
from bench.configuration_place import Etcd, Gateway, Versions
from bench.configuration_prober import Prober, Probing
from bench.configuration_setting import Operator
from bench.cpu import usage
from bench.load import LoadFailed
from bench.validity import shortened
from gateway.config.change import OutcomeUnknown
from gateway.config.store.opening import open_store
from gateway.config.store.store import StoreAway

if TYPE_CHECKING:
    from bench.configuration_changes import Change
    from bench.configuration_setting import Setting

NAME = "etcd-outage"
MODEL = "times"
LONG_ROUNDS, SHORT_OUTAGES = 6, 4  # the long outage in rounds; the others last one round each
CALM_S = 2.0
CONVERGED_S, PATIENCE_S = 2.0, 15.0
PROBE_INTERVAL_MS = 5.0


async def measure(setting: Setting) -> Outcome:
    """Raises StartFailed, LoadFailed and StoreError."""
    versions = Versions(setting.folder / "versions")
    outages_s = [LONG_ROUNDS * setting.seconds] + [setting.seconds] * SHORT_OUTAGES
    changes: list[Change] = []  # the first after each outage
    returned_ns: list[int] = []
    with Etcd(setting.folder / "etcd") as etcd:
        everything = [await _write(etcd, versions, 0)]
        with Gateway(etcd.url, setting.folder / "gateway", setting.placement.model_cpu) as gateway:
            target = Target(gateway.address, MODEL, setting.placement.load_cpu)
            peak = await asyncio.to_thread(find_peak, target)
            setting.say(f"{NAME}: peak {peak:,.0f}/s; load at {SHARE:.0%} of it")
            before = usage()
            probing = Probing(gateway.address, MODEL, PROBE_INTERVAL_MS, setting.folder / "probes.json")
            with Prober(probing) as prober:
                async with Background(target, SHARE * peak) as load:
                    for number, outage_s in enumerate(outages_s, 1):
                        await asyncio.sleep(CALM_S)
                        await asyncio.to_thread(etcd.kill)
                        setting.say(f"{NAME}: etcd is away for {outage_s:g} s")
                        await asyncio.sleep(outage_s)
                        await asyncio.to_thread(etcd.start)
                        returned_ns.append(time.monotonic_ns())
                        changes.append(await _write(etcd, versions, number))
                        await asyncio.sleep(PATIENCE_S / 3)
            others = before.others_share(usage())
    probes = prober.probes
    wrong = [*load.wrong, *flaws([*everything, *changes], probes)]
    converged_s = [
        None if latency is None else latency / 1e3 + (change.committed_ns - at_ns) / 1e9
        for change, latency, at_ns in zip(changes, latencies_ms(changes, probes), returned_ns, strict=True)
    ]
    known = [each for each in converged_s if each is not None]
    failed = load.failed + sum(bool(probe.error) for probe in probes)
    return Outcome(
        NAME,
        f"etcd killed for {outages_s[0]:g} s, then {SHORT_OUTAGES} times for {setting.seconds:g} s, load at "
        f"{SHARE:.0%} of a peak of {peak:,.0f}/s ({load.requests:,} requests); converged: from etcd saying "
        "that it is healthy to the first answer of a change that was committed at once after that",
        (
            Figure("failed requests", float(failed), "", 0),
            Figure("converged after the long outage", converged_s[0], "s", CONVERGED_S),
            Figure(
                "converged, the longest of all",
                max(known) if len(known) == len(changes) else None,
                "s",
                CONVERGED_S,
            ),
        ),
        shortened(wrong),
        others,
        {"peak_per_s": peak, "outages_s": outages_s, "converged_s": converged_s, "requests": load.requests},
    )


async def _write(etcd: Etcd, versions: Versions, number: int) -> Change:
    """Change the document by a connection of its own, as somebody does who has just come. Raises
    LoadFailed.
    """
    try:
        async with asyncio.timeout(PATIENCE_S), open_store(etcd.url) as store:
            operator = Operator(store, MODEL)
            batching = {"max_batch_size": 60 - number, "batchable": True}
            document = versions.document(MODEL, (1,), {1: 1}, batching=batching)
            while True:
                try:
                    return await operator.write("outage", document)
                except (StoreAway, OutcomeUnknown):
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise LoadFailed(f"etcd takes no change {PATIENCE_S:g} s after it is healthy") from None
