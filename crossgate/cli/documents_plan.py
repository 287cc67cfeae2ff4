"""What a change would do to live gateways: what loads, where, how much memory, which traffic moves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.config.device import parse_device
from gateway.config.keys import GATEWAYS, STATUS, WORKERS, named_by
from gateway.config.registration import Registration, RegistrationInvalid, read_registration
from gateway.config.status import ModelReport, Presence
from gateway.lifecycle.placement import PlacementFailed, place
from gateway.workerpool.slot import Slot
from registry.fetching import FetchFailed, fetch

if TYPE_CHECKING:
    from gateway.config.document import ModelDocument
    from gateway.config.store.store import Store

# Weights as ONNX Runtime and OpenVINO hold them after optimising, and what a run needs beside them.
MEMORY_FACTOR: Final = 2.0
_RELOADING: Final = ("instances", "inputs", "outputs")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Who is there, as the store says."""

    slots: dict[str, list[Registration]] = field(default_factory=dict)  # {node: slots}
    presences: tuple[Presence, ...] = ()
    reports: dict[tuple[str, str], ModelReport] = field(default_factory=dict)  # {(gateway, model): report}


@dataclass(frozen=True, slots=True)
class Loading:
    """Versions, ascending by number."""

    loads: tuple[str, ...] = ()
    reloads: tuple[str, ...] = ()
    unloads: tuple[str, ...] = ()
    routed: tuple[str, ...] = ()  # those that a changed routing names

    @property
    def concerned(self) -> frozenset[str]:
        """The versions on whose state the change depends."""
        return frozenset((*self.loads, *self.reloads, *self.routed))


async def read_cluster(store: Store) -> Cluster:
    """What cannot be read of it is left out. Raises StoreError."""
    slots: dict[str, list[Registration]] = {}
    for entry in (await store.read(WORKERS)).entries:
        try:
            registration = read_registration(entry.key, entry.value)
        except RegistrationInvalid:
            continue
        slots.setdefault(registration.node, []).append(registration)
    presences: list[Presence] = []
    for entry in (await store.read(GATEWAYS)).entries:
        try:
            presences.append(msgspec.json.decode(entry.value, type=Presence))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return Cluster(slots, tuple(each for each in presences if not each.draining), await _reports(store))


async def _reports(store: Store) -> dict[tuple[str, str], ModelReport]:
    found: dict[tuple[str, str], ModelReport] = {}
    for entry in (await store.read(STATUS)).entries:
        match named_by(entry.key, STATUS):
            case (gateway, model):
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    found[gateway, model] = msgspec.json.decode(entry.value, type=ModelReport)
    return found


def loading_of(before: ModelDocument | None, after: ModelDocument | None) -> Loading:
    """What a change loads, loads again and unloads."""
    had = _wanted(before)
    wants = _wanted(after)
    if before is None or after is None:
        return Loading(loads=wants, unloads=had, routed=_routed(after))
    again = _reloads_all(before, after)
    reloads = [
        version
        for version in wants
        if version in had and (again or before.versions.get(version) != after.versions.get(version))
    ]
    routing = before.labels != after.labels or before.traffic != after.traffic
    return Loading(
        tuple(version for version in wants if version not in had),
        tuple(reloads),
        tuple(version for version in had if version not in wants),
        _routed(after) if routing else (),
    )


def plan_lines(
    before: ModelDocument | None, after: ModelDocument | None, cluster: Cluster
) -> tuple[str, ...]:
    """What the change of one model would do, in words."""
    loading = loading_of(before, after)
    lines: list[str] = []
    if after is not None:
        for what, versions in (("loads", loading.loads), ("loads again", loading.reloads)):
            lines += [f"{what} version {version}{_details(after, version, cluster)}" for version in versions]
    lines += [f"unloads version {version}" for version in loading.unloads]
    lines += _traffic_lines(before, after)
    return tuple(lines) or ("takes effect at once, loads nothing and moves no traffic",)


def shares(document: ModelDocument | None) -> dict[str, float]:
    """{what serves requests that name no version and match no rule: percent}"""
    if document is None:
        return {}
    split = document.traffic.split
    total = sum(split.values())
    if not total:
        return {"the latest ready version": 100.0}
    found: dict[str, float] = {}
    for target, weight in split.items():
        version = document.resolve(target)
        found[f"version {version}"] = found.get(f"version {version}", 0.0) + 100 * weight / total
    return found


def _wanted(document: ModelDocument | None) -> tuple[str, ...]:
    """A version that loads when it is asked for is none."""
    if document is None or document.load.mode != "always":
        return ()
    return document.wanted_versions()


def _routed(document: ModelDocument | None) -> tuple[str, ...]:
    if document is None or document.load.mode != "always":
        return ()
    return tuple(sorted(document.named_versions() & set(document.versions), key=int))


def _reloads_all(before: ModelDocument, after: ModelDocument) -> bool:
    batching, was = after.batching, before.batching
    return (
        any(getattr(before, name) != getattr(after, name) for name in _RELOADING)
        or batching.batchable != was.batchable
        or batching.pad != was.pad
        or (batching.max_batch_size > 1) != (was.max_batch_size > 1)
    )


def _details(document: ModelDocument, version: str, cluster: Cluster) -> str:
    source = document.versions[version].source if version in document.versions else ""
    path, size = _local_file(source)
    memory = f"about {_mib(size * MEMORY_FACTOR)} on each slot" if size else "memory unknown from here"
    return f" {_where(document, path, cluster)}; {memory}"


def _where(document: ModelDocument, path: str, cluster: Cluster) -> str:
    found: list[str] = []
    for node, slots, runtimes in _nodes(cluster):
        try:
            placed = place(document.instances, path, slots, runtimes, node)
        except PlacementFailed as error:
            found.append(f"not on node {node} ({error})")
            continue
        found += [
            f"on node {node}, slot {each.slot} ({each.runtime}, {each.count} at once)" for each in placed
        ]
    return "; ".join(found) or "nowhere: no gateway with slots is live"


def _nodes(cluster: Cluster) -> list[tuple[str, list[Slot], set[str]]]:
    """Return (node, slots, runtimes) of pools and of gateways that have one of their own; gateways of one
    node have the same.
    """
    nodes: dict[str, tuple[dict[str, Slot], set[str]]] = {}
    for node, registrations in cluster.slots.items():
        slots, runtimes = nodes.setdefault(node, ({}, set()))
        for each in registrations:
            slots[each.slot] = Slot(each.slot, each.parsed_device, each.cpus, each.capacity)
            runtimes.update(each.runtimes)
    for presence in cluster.presences:
        slots, runtimes = nodes.setdefault(presence.node, ({}, set()))
        runtimes.update(presence.runtimes)
        for own in presence.slots:
            slots[own.slot] = Slot(own.slot, parse_device(own.device), own.cpus, own.capacity)
    return [
        (node, list(slots.values()), runtimes) for node, (slots, runtimes) in sorted(nodes.items()) if slots
    ]


def _local_file(source: str) -> tuple[str, int]:
    """The model's file and the size of the source, where this machine can read it."""
    if urlsplit(source).scheme != "file":
        return "", 0
    try:
        path = fetch(source).path
        root = Path(unquote(urlsplit(source).path))
        files = [root] if root.is_file() else [each for each in root.rglob("*") if each.is_file()]
        return path, sum(each.stat().st_size for each in files)
    except (FetchFailed, OSError):
        return "", 0


def _traffic_lines(before: ModelDocument | None, after: ModelDocument | None) -> list[str]:
    was, will = shares(before), shares(after)
    moved = [
        f"{target} {was.get(target, 0.0):.3g} % -> {will.get(target, 0.0):.3g} %"
        for target in sorted({**was, **will})
        if was.get(target, 0.0) != will.get(target, 0.0)
    ]
    lines = [f"traffic: {', '.join(moved)}"] if moved else []
    if before is not None and after is not None and before.traffic.rules != after.traffic.rules:
        lines.append("traffic: rules change, which decide before the split")
    return lines


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB" if size_bytes >= 1 << 20 else f"{size_bytes / 1024:.0f} KiB"
