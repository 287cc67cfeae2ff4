"""How soon a committed change of weights or batching acts on requests, and what changes cost those.

Rounds with changes and rounds without take turns, under the same load and with the same prober. In a round
without, the same is committed to a place in etcd that no gateway follows: what a commit costs whoever makes
it, and etcd, on the same processors, is no cost of a gateway's.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from bench.configuration_changes import MOST_DEVIATIONS, Quantiles, flaws, latencies_ms, share_deviation
from bench.configuration_load import SHARE, Loaded, Target, find_peak, load_for
from bench.configuration_outcome import Figure, Outcome
from bench.configuration_place import Etcd, Gateway, Versions
from bench.configuration_prober import Prober, Probing
from bench.configuration_setting import Operator
from bench.cpu import usage
from bench.validity import shortened
from gateway.config.store.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.configuration_changes import Change
    from bench.configuration_prober import Probe
    from bench.configuration_setting import Setting

NAME = "change-latency"
MODEL = "times"
LATENCY_MS, P99_RATIO = 100.0, 1.2
PROBE_MS = 5.0  # more often, the prober would take a fifth of a processor from what it measures
APPLY = "crossgate_config_apply_seconds"


@dataclass(frozen=True)
class Round:
    disturbed: bool
    loaded: Loaded
    probes: Sequence[Probe]
    changes: Sequence[Change]


async def measure(setting: Setting) -> Outcome:
    """Raises StartFailed, LoadFailed and StoreError."""
    versions = Versions(setting.folder / "versions")
    with Etcd(setting.folder / "etcd") as etcd:
        async with AsyncExitStack() as held:
            store = await held.enter_async_context(open_store(etcd.url))
            operator = Operator(store, MODEL)
            await operator.write("first", versions.document(MODEL, (1, 2), {1: 50, 2: 50}))
            elsewhere = Operator(await held.enter_async_context(open_store(etcd.at("elsewhere"))), MODEL)
            with Gateway(etcd.url, setting.folder / "gateway", setting.placement.model_cpu) as gateway:
                target = Target(gateway.address, MODEL, setting.placement.load_cpu)
                peak = await asyncio.to_thread(find_peak, target)
                setting.say(f"{NAME}: peak {peak:,.0f}/s; load at {SHARE:.0%} of it")
                before, counted = usage(), gateway.metrics()
                rounds = []
                for number in range(2 * setting.rounds):
                    disturbed = number % 4 in (1, 2)  # neither is always first
                    writer = operator if disturbed else elsewhere
                    rounds.append(
                        await _round(setting, target, SHARE * peak, writer, versions, number, disturbed)
                    )
                    setting.say(f"{NAME}: {_line(rounds[-1])}")
                others = before.others_share(usage())
                applied = apply_quantiles(counted, gateway.metrics())
    return outcome(operator.changes, rounds, applied, peak, others)


async def _round(
    setting: Setting,
    target: Target,
    rate_per_s: float,
    operator: Operator,
    versions: Versions,
    number: int,
    disturbed: bool,
) -> Round:
    file = setting.folder / f"probes-{number}.json"
    already = len(operator.changes)
    with Prober(Probing(target.address, MODEL, PROBE_MS, file)) as prober:
        load = asyncio.create_task(asyncio.to_thread(load_for, target, rate_per_s, setting.seconds))
        await asyncio.sleep(1.0)
        await _change_while(load, setting, operator, versions, number)
        loaded = await load
    return Round(disturbed, loaded, prober.probes, operator.changes[already:] if disturbed else ())


async def _change_while(
    load: asyncio.Task[Loaded], setting: Setting, operator: Operator, versions: Versions, number: int
) -> None:
    """Commit at random times. What weights are, and whether all requests go to one version, is random too."""
    random = Random(f"{setting.seed}/{number}")
    wanted = setting.changes // setting.rounds
    mean_s = 0.8 * (setting.seconds - 1.5) / wanted  # the rest is for the commits themselves
    split = {1: 50, 2: 50}
    for _ in range(wanted):
        await asyncio.sleep(random.expovariate(1 / mean_s))
        if load.done():
            return
        kind = random.choice(("weights", "batching"))
        if kind == "weights":
            split = random.choice(({1: 1, 2: 0}, {1: 0, 2: 1}, {1: 1, 2: random.randrange(1, 20)}))
        batching = {"max_batch_size": random.randrange(48, 65), "batchable": True}
        await operator.write(kind, versions.document(MODEL, (1, 2), split, batching=batching))


def outcome(
    changes: Sequence[Change],
    rounds: Sequence[Round],
    applied: Quantiles | None,
    peak_per_s: float,
    others_share: float,
) -> Outcome:
    found = [
        latency
        for each in rounds
        for latency in latencies_ms(each.changes, each.probes)
        if latency is not None
    ]
    made = sum(len(each.changes) for each in rounds)
    quantiles = Quantiles.of(found)
    probes = [probe for each in rounds for probe in each.probes]
    wrong = [flaw for each in rounds for flaw in each.loaded.wrong]
    wrong += flaws(changes, probes)
    if len(found) < made:
        wrong.append(f"{made - len(found)} of {made} changes were never seen")
    deviation = share_deviation(changes, probes, "2")
    if abs(deviation) > MOST_DEVIATIONS:
        wrong.append(f"version 2 answered {deviation:+.1f} standard deviations off its weights")
    p50, p99, most = (
        (None, None, None) if quantiles is None else (quantiles.p50, quantiles.p99, quantiles.max)
    )
    return Outcome(
        NAME,
        f"{made} changes of weights or batching at random times, load at {SHARE:.0%} of a peak of "
        f"{peak_per_s:,.0f}/s; from the commit's return to the first answer of its revision, asked for every "
        f"{PROBE_MS:g} ms; rounds with changes in turn with rounds in which the same is committed where no "
        "gateway follows; ratio: the median of each two rounds in a row",
        (
            Figure("commit to answer, p50", p50, "ms"),
            Figure("commit to answer, p99", p99, "ms", LATENCY_MS),
            Figure("commit to answer, max", most, "ms"),
            Figure("p99 of requests, with changes / without", p99_ratio(rounds), "x", P99_RATIO),
            Figure("heard to applied, p99 at most", applied.p99 * 1e3 if applied else None, "ms"),
            Figure("failed requests", float(failed_requests(rounds)), "", 0),
        ),
        shortened(wrong),
        others_share,
        {
            "peak_per_s": peak_per_s,
            "latencies_ms": found,
            "share_deviation": deviation,
            "rounds": [_plain(each) for each in rounds],
        },
    )


def p99_ratio(rounds: Sequence[Round]) -> float | None:
    """The median of what each two rounds that follow each other say, one with and one without changes."""
    ratios = []
    for one, other in zip(rounds[::2], rounds[1::2], strict=False):
        disturbed, calm = (one, other) if one.disturbed else (other, one)
        ratios.append(disturbed.loaded.p99_us / calm.loaded.p99_us)
    return statistics.median(ratios) if ratios else None


def failed_requests(rounds: Sequence[Round]) -> int:
    probes = sum(bool(probe.error) for each in rounds for probe in each.probes)
    return probes + sum(each.loaded.failed for each in rounds)


def apply_quantiles(before: str, after: str) -> Quantiles | None:
    """Of what the gateway's own histogram has counted between two expositions, in seconds: the upper bounds
    of the buckets in which they lie.
    """
    earlier = _buckets(before)
    buckets = sorted((bound, seen - earlier.get(bound, 0.0)) for bound, seen in _buckets(after).items())
    if not buckets or not buckets[-1][1]:
        return None
    count = buckets[-1][1]
    p50, p99, most = (
        next(bound for bound, seen in buckets if seen >= share * count) for share in (0.5, 0.99, 1.0)
    )
    return Quantiles(int(count), p50, p99, most)


def _buckets(exposition: str) -> dict[float, float]:
    """{upper bound: observations up to it}"""
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == f"{APPLY}_bucket"
    }


def _line(each: Round) -> str:
    found = [latency for latency in latencies_ms(each.changes, each.probes) if latency is not None]
    quantiles = Quantiles.of(found)
    told = "no changes" if quantiles is None else f"{len(found)} changes, p99 {quantiles.p99:.1f} ms"
    return f"{told}; {each.loaded.report.requests_per_s:,.0f}/s, p99 {each.loaded.p99_us / 1e3:.2f} ms"


def _plain(each: Round) -> dict[str, Any]:
    """What a report keeps of a round; times count from the start of its window."""
    start_ns = each.loaded.window_ns
    took = Quantiles.of([probe.took_us for probe in each.probes if not probe.error])
    return {
        "disturbed": each.disturbed,
        "p99_us": each.loaded.p99_us,
        "requests": each.loaded.report.requests,
        "outcomes": each.loaded.report.outcomes,
        "probe_us": None if took is None else asdict(took),
        "seconds": [
            {"second": one.second, "p99_us": one.p99_us, "requests_per_s": one.requests_per_s}
            for one in each.loaded.report.series
            if one.second >= 0
        ],
        "changes": [
            {
                "kind": change.kind,
                "revision": change.revision,
                "at_s": (change.committed_ns - start_ns) / 1e9,
                "split": dict(change.split),
                "latency_ms": latency,
            }
            for change, latency in zip(each.changes, latencies_ms(each.changes, each.probes), strict=True)
        ],
    }
