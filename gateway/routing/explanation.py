"""Why a request goes where it goes: what `ModelRoute.choose` answers, for every way that chance leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.routing.table import ModelRoute
    from gateway.servable import Servable

By = Literal["version", "label", "rule", "only", "sticky", "weights", "nothing"]


@dataclass(frozen=True)
class Way:
    """Where requests go with the probability `share`: a servable, or what `choose` raises instead."""

    version: str
    share: float
    servable: Servable | None = None
    error: GatewayError | None = None


@dataclass(frozen=True)
class Explanation:
    """`by` is what decides: the version or label that is asked for, a rule (its position), the only version
    there is, the sticky key, or chance by the weights; nothing where no version could be chosen.
    """

    by: By
    ways: tuple[Way, ...]
    rule: int | None = None
    sticky_value: str | None = None


def explain(route: ModelRoute, version: str, metadata: Mapping[str, str]) -> Explanation:
    """Return where a request with this version or label and these metadata goes."""
    sticky_value = metadata.get(route.sticky) if route.sticky else None
    rule = None if version else route.rule_for(metadata)
    if version:
        by: By = "label" if version in route.labels else "version"
        named = route.labels.get(version, version)
    elif rule is not None:
        by, named = "rule", route.rules[rule][1]
    elif not route.split:
        by, named = "nothing", ""
    elif len(route.split) == 1:
        by, named = "only", next(iter(route.split))
    elif sticky_value is not None:
        by, named = "sticky", ""
    else:
        ways = [_way(route, version, metadata, *each) for each in _draws(route.split)]
        return Explanation("weights", tuple(ways), sticky_value=sticky_value)
    return Explanation(by, (_way(route, version, metadata, named, 1.0, 0.0),), rule, sticky_value)


def _draws(split: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Return (version, share, a draw that falls on it) for each."""
    total, below = sum(split.values()), 0.0
    for version, weight in split.items():
        yield version, weight / total, (below + weight / 2) / total
        below += weight


def _way(
    route: ModelRoute, asked: str, metadata: Mapping[str, str], named: str, share: float, draw: float
) -> Way:
    try:
        servable = route.choose(asked, metadata, draw)
    except GatewayError as error:
        return Way(named, share, error=error)
    return Way(servable.version, share, servable)
