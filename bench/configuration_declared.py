"""Thousands of models that are declared and loaded on demand: what a start costs, a change, and memory."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import grpc

from bench.configuration_changes import Quantiles, flaws, latencies_ms
from bench.configuration_outcome import Figure, Outcome
from bench.configuration_place import Etcd, Gateway, Versions, request
from bench.configuration_prober import Prober, Probing
from bench.configuration_setting import PROBE_INTERVAL_MS, Operator
from bench.cpu import memory, usage
from bench.endpoint import Endpoint, describe
from bench.load import LoadFailed
from bench.validity import shortened
from gateway.config.keys import model_key
from gateway.config.store.opening import open_store
from gateway.config.store.store import Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.configuration_changes import Change
    from bench.configuration_prober import Probe
    from bench.configuration_setting import Setting
    from gateway.config.store.store import Store

NAME = "many-declared"
LOADED = 100
CHANGES = 100
IN_A_COMMIT = 100
START_S, APPLIED_MS, MODEL_BYTES, LAG_MS = 5.0, 150.0, 5000.0, 5.0
SETTLE_S = 3.0  # until what a start has used is given back


async def measure(setting: Setting) -> Outcome:
    """Raises StartFailed, LoadFailed and StoreError."""
    versions = Versions(setting.folder / "versions")
    with Etcd(setting.folder / "etcd") as etcd:
        before = usage()
        few = await _start(setting, etcd.at("few"), versions, LOADED)
        setting.say(
            f"{NAME}: {LOADED} models: ready after {few.ready_s:.2f} s, {few.rss_bytes / 2**20:.1f} MiB"
        )
        many = await _start(setting, etcd.at("many"), versions, setting.declared)
        setting.say(
            f"{NAME}: {setting.declared} models: ready after {many.ready_s:.2f} s, "
            f"{many.rss_bytes / 2**20:.1f} MiB"
        )
        others = before.others_share(usage())
    return outcome(setting.declared, few, many, others)


@dataclass(frozen=True)
class Started:
    """What one gateway showed. `lag_at_start` and `lag` are probes of ServerLive, before it was ready and
    while one model was changed; `probes` are of that model.
    """

    ready_s: float
    rss_bytes: int  # with the same models loaded
    lag_at_start: Sequence[Probe]
    lag: Sequence[Probe]
    probes: Sequence[Probe]
    changes: Sequence[Change]


async def _start(setting: Setting, url: str, versions: Versions, count: int) -> Started:
    """Declare models, start a gateway, load some of them and change one of those again and again."""
    folder = setting.folder / str(count)
    async with open_store(url) as store:
        operator = Operator(store, _name(0))
        await _declare(store, versions, count)
        gateway = Gateway(url, folder, setting.placement.model_cpu)
        with Prober(Probing(gateway.address, "", PROBE_INTERVAL_MS, folder / "start.json")) as starting:
            began_s = time.monotonic()
            gateway.launch()
            try:
                await asyncio.to_thread(gateway.wait_ready)
                ready_s = time.monotonic() - began_s
            except BaseException:
                gateway.stop()
                raise
        with gateway:
            await asyncio.to_thread(_load, gateway.address)
            await asyncio.sleep(SETTLE_S)
            rss_bytes = memory([gateway.process.pid]).rss_bytes
            live = Probing(gateway.address, "", PROBE_INTERVAL_MS, folder / "live.json")
            asked = Probing(gateway.address, _name(0), PROBE_INTERVAL_MS, folder / "probes.json")
            with Prober(live) as lag, Prober(asked) as prober:
                await _change(setting, operator, versions)
    return Started(ready_s, rss_bytes, starting.probes, lag.probes, prober.probes, operator.changes)


async def _declare(store: Store, versions: Versions, count: int) -> None:
    for start in range(0, count, IN_A_COMMIT):
        names = [_name(number) for number in range(start, min(start + IN_A_COMMIT, count))]
        await store.commit(
            [Put(model_key(name), json.dumps(_document(versions, name)).encode()) for name in names]
        )


def _document(versions: Versions, model: str, **policy: Any) -> dict[str, Any]:
    document = versions.document(
        model, (1,), {1: 1}, load={"mode": "on_demand"}, warm_up={"runs": 0}, **policy
    )
    return document | {"labels": {"stable": "1"}, "deadline": {"default_ms": 5000}}


def _name(number: int) -> str:
    return f"model-{number:05}"


def _load(address: str) -> None:
    """Ask for as many models as are to be loaded. Raises LoadFailed."""
    with Endpoint(address) as endpoint:
        for number in range(LOADED):
            try:
                endpoint.infer(request(_name(number)))
            except grpc.RpcError as error:
                raise LoadFailed(f"{_name(number)}: {describe(error)}") from error


async def _change(setting: Setting, operator: Operator, versions: Versions) -> None:
    random = Random(setting.seed)
    mean_s = max(2 * setting.seconds / CHANGES, 0.02)
    for _ in range(CHANGES):
        batching = {"max_batch_size": random.randrange(8, 64), "batchable": True}
        await operator.write("batching", _document(versions, operator.model, batching=batching))
        await asyncio.sleep(random.expovariate(1 / mean_s))
    await asyncio.sleep(APPLIED_MS / 1e3)


def outcome(declared: int, few: Started, many: Started, others_share: float) -> Outcome:
    found = [each for each in latencies_ms(many.changes, many.probes) if each is not None]
    wrong = [each for started in (few, many) for each in _wrong(started)]
    if len(found) < len(many.changes):
        wrong.append(f"{len(many.changes) - len(found)} of {len(many.changes)} changes were never seen")
    took = Quantiles.of(found)
    each_bytes = (many.rss_bytes - few.rss_bytes) / (declared - LOADED)
    starting, changing = _lag_ms(many.lag_at_start), _lag_ms(many.lag)
    return Outcome(
        NAME,
        f"{declared:,} models loaded on demand, {LOADED} of them loaded, beside a gateway with those "
        f"{LOADED} alone; lag: how long ServerLive takes, which the event loop answers, with the way there "
        "and back",
        (
            Figure("from the process's start to ready", many.ready_s, "s"),
            Figure(
                "of that, list and validation (less a start with few)",
                many.ready_s - few.ready_s,
                "s",
                START_S,
            ),
            Figure("commit to answer, p50", took.p50 if took else None, "ms"),
            Figure("commit to answer, max", took.max if took else None, "ms", APPLIED_MS),
            Figure("memory of a declared model", each_bytes, "bytes", MODEL_BYTES),
            Figure("lag while it starts, p99", starting.p99 if starting else None, "ms", LAG_MS),
            Figure("lag while one model changes, p99", changing.p99 if changing else None, "ms", LAG_MS),
        ),
        shortened(wrong),
        others_share,
        {
            "few": {"ready_s": few.ready_s, "rss_bytes": few.rss_bytes, "lag": _plain(_lag_ms(few.lag))},
            "many": {"ready_s": many.ready_s, "rss_bytes": many.rss_bytes},
            "lag": {"starting": _plain(starting), "changing": _plain(changing)},
            "latencies_ms": found,
        },
    )


def _wrong(started: Started) -> list[str]:
    """The documents before the first change are of revisions that the operator did not see."""
    first = started.changes[0].revision
    found = flaws(started.changes, [each for each in started.probes if each.error or each.revision >= first])
    return found + [f"a probe failed: {each.error}" for each in started.lag if each.error]


def _lag_ms(probes: Sequence[Probe]) -> Quantiles | None:
    return Quantiles.of([probe.took_us / 1e3 for probe in probes if not probe.error])


def _plain(quantiles: Quantiles | None) -> dict[str, float] | None:
    return None if quantiles is None else asdict(quantiles)
