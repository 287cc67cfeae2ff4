"""The routing table: name and version, label, metadata rules, weights and stickiness to one servable.

A table never changes; the life cycle publishes a new one. `choose` is a pure function of the request and a
random number.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import NotFound, NotReady

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.document import Traffic
    from gateway.servable import Servable


class UnknownModel(NotFound):
    def __init__(self, model: str, known: Sequence[str]) -> None:
        there = ", ".join(sorted(known)[:20]) or "no model"
        super().__init__(f"unknown model {model!r}; this gateway serves {there}")


class UnknownVersion(NotFound):
    def __init__(self, model: str, version: str, known: Sequence[str], labels: Sequence[str]) -> None:
        there = ", ".join((*known, *labels)) or "none"
        super().__init__(f"model {model} has no version or label {version!r}; there are {there}")


class ModelNotReady(NotReady):
    def __init__(self, model: str, version: str, reason: str) -> None:
        what = f"model {model}" + (f" version {version}" if version else "")
        super().__init__(f"{what} is not ready: {reason}")


class Waits(NamedTuple):
    """How requests wait for a version to be loaded: so many at a time, each no larger, and for no longer
    where it brings no deadline.
    """

    most: int = 0
    max_request_bytes: int | None = None
    default_deadline_ns: int | None = None


NO_WAITS: Final = Waits()


class ModelAsleep(ModelNotReady):
    """The version is loaded on demand: whoever can wait may ask for it."""

    def __init__(self, model: str, version: str, waits: Waits = NO_WAITS) -> None:
        super().__init__(model, version, "it is loaded on demand")
        self.model = model
        self.version = version
        self.waits = waits


@dataclass(frozen=True)
class ModelRoute:
    """One model: its ready versions, why others are not ready, and the routing part of its document in force.

    `split` is {version: weight} of versions that are ready or asleep, already resolved from labels; never
    empty unless there is none. `asleep` are the versions that a request loads and waits for, under the
    conditions of `waits`.
    """

    model: str
    revision: int
    ready: Mapping[str, Servable] = field(default_factory=dict)  # {version: servable}
    waiting: Mapping[str, str] = field(default_factory=dict)  # {version: why it is not ready}
    labels: Mapping[str, str] = field(default_factory=dict)  # {label: version}
    rules: Sequence[tuple[Mapping[str, str], str]] = ()  # (metadata that must match, version)
    split: Mapping[str, float] = field(default_factory=dict)
    sticky: str | None = None
    problem: str = ""  # why there is nothing to be ready
    asleep: frozenset[str] = frozenset()
    waits: Waits = NO_WAITS

    @cached_property
    def only(self) -> Servable | None:
        """The one servable that answers whatever names no version, None where there is a choice or none."""
        if self.rules or len(self.split) != 1:
            return None
        return self.ready.get(next(iter(self.split)))

    def is_settled(self, version: str) -> bool:
        """Whether the choice depends on neither the request's metadata nor chance."""
        return bool(version) or self.only is not None

    def choose(self, version: str, metadata: Mapping[str, str], draw: float) -> Servable:
        """Return the servable for a request. `draw` is uniform in [0, 1).

        Raises:
            UnknownVersion, ModelNotReady, ModelAsleep
        """
        if version:
            return self._named(self.labels.get(version, version), version)
        rule = self.rule_for(metadata)
        if rule is not None:
            target = self.rules[rule][1]
            return self._named(target, target)
        if len(self.split) == 1:
            return self._named(next(iter(self.split)), "")
        if not self.split:
            reason = "; ".join(f"version {v}: {why}" for v, why in self.waiting.items())
            raise ModelNotReady(self.model, "", reason or self.problem or "no version is loaded")
        key = metadata.get(self.sticky) if self.sticky else None
        target = rendezvous(key, self.split) if key is not None else weighted(draw, self.split)
        return self._named(target, "")

    def rule_for(self, metadata: Mapping[str, str]) -> int | None:
        """Return the position of the first rule that these metadata fulfil, None where none is."""
        for position, (conditions, _) in enumerate(self.rules):
            if all(metadata.get(key) == value for key, value in conditions.items()):
                return position
        return None

    def _named(self, version: str, asked: str) -> Servable:
        servable = self.ready.get(version)
        if servable is not None:
            return servable
        if version in self.asleep:
            raise ModelAsleep(self.model, version, self.waits)
        if version in self.waiting:
            raise ModelNotReady(self.model, version, self.waiting[version])
        if self.problem:
            raise ModelNotReady(self.model, asked, self.problem)
        raise UnknownVersion(
            self.model,
            asked,
            sorted({*self.ready, *self.asleep, *self.waiting}, key=int),
            sorted(self.labels),
        )


@dataclass(frozen=True)
class RouteTable:
    models: Mapping[str, ModelRoute] = field(default_factory=dict)  # {model: route}

    def find(self, model: str) -> ModelRoute:
        """Return a model's route.

        Raises:
            UnknownModel: naming the models that exist.
        """
        route = self.models.get(model)
        if route is None:
            raise UnknownModel(model, list(self.models))
        return route


def resolve_split(traffic: Traffic, labels: Mapping[str, str], ready: Sequence[str]) -> dict[str, float]:
    """Return {version: weight}: what the document says, or all to the latest ready version when it says
    nothing.
    """
    if not traffic.split:
        return {max(ready, key=int): 1.0} if ready else {}
    split: dict[str, float] = {}
    for target, weight in traffic.split.items():
        if weight > 0:
            version = labels.get(target, target)
            split[version] = split.get(version, 0.0) + weight
    return split


def weighted(draw: float, split: Mapping[str, float]) -> str:
    """Return the version that a uniform number in [0, 1) falls on."""
    at = draw * sum(split.values())
    versions = list(split)
    for version in versions:
        at -= split[version]
        if at < 0:
            return version
    return versions[-1]


def rendezvous(key: str, split: Mapping[str, float]) -> str:
    """Return the version for a sticky key by weighted rendezvous hashing.

    When weights change, only as many keys move as the change demands. Score: -weight / ln(hash), after
    Schindelhauer and Schomaker.
    """

    def score(version: str, weight: float) -> float:
        digest = hashlib.blake2b(f"{version}\0{key}".encode(), digest_size=8).digest()
        # 53 bits: more would round to 1.0, whose logarithm is 0
        uniform = ((int.from_bytes(digest, "little") >> 12) + 0.5) / 2**52
        return -weight / math.log(uniform)

    return max(split, key=lambda version: score(version, split[version]))
