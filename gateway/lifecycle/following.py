"""Follows the source of desired state, and hands on what it says to those whom it is about."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.config.keys import GATEWAY_POLICY
from gateway.telemetry import logs
from gateway.telemetry.sampling import Sampling
from gateway.turns import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.clock import Clock
    from gateway.config.document import Trace
    from gateway.config.gateway_document import GatewayDocument
    from gateway.lifecycle.desired import Desired
    from gateway.lifecycle.guarding import Guarding
    from gateway.lifecycle.reconciler import Reconciler
    from gateway.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2  # how late it may be noticed that the source is away


class Source(Protocol):
    """Where desired state comes from: a directory or a store."""

    @property
    def where(self) -> str:
        """How messages name it."""
        ...

    @property
    def away(self) -> str:
        """Why it cannot be followed now, '' while it can."""
        ...

    @property
    def from_disk(self) -> bool:
        """Whether what is in force was read from the last good state on disk, and the source not heard
        since.
        """
        ...

    def changes(self) -> AsyncIterator[Desired]: ...


@dataclass(frozen=True)
class SourceState:
    """`away_s` is how long the source has been away, `heard_s` how long ago it last said something."""

    where: str
    away: str = ""
    away_s: float = 0.0
    heard_s: float = 0.0
    from_disk: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)  # {model or key: what is wrong with it}


class Following:
    """`run` follows until cancelled, and `notice` runs beside it. What a process was started with holds where
    documents say nothing.
    """

    def __init__(
        self,
        source: Source,
        reconciler: Reconciler,
        tracing: Tracing,
        clock: Clock,
        *,
        log_level: str,
        guarding: Guarding | None = None,
    ) -> None:
        self._source = source
        self._reconciler = reconciler
        self._tracing = tracing
        self._clock = clock
        self._log_level = log_level
        self._guarding = guarding
        self._sampling: dict[str, Sampling] = {}  # {model: as its document says}
        self._gateway: GatewayDocument | None = None
        self._heard_ns = clock.now_ns()
        self._away_since_ns: int | None = None

    async def run(self) -> None:
        """Raises StoreRefused: at the start, with nothing to serve instead."""
        async for desired in self._source.changes():
            self._heard_ns = self._clock.now_ns()
            await self._sample(desired)
            if desired.gateway != self._gateway:
                self._take_over(desired.gateway)
            self._reconciler.observe(desired)

    async def _sample(self, desired: Desired) -> None:
        turn = Turn()
        changed = desired.changed if desired.changed is not None else desired.models.keys()
        for name in list(changed) + [name for name in self._sampling if name not in desired.models]:
            model = desired.models.get(name)
            sampling = _sampling(model.document.trace) if model is not None else Sampling()
            if sampling != Sampling():
                self._sampling[name] = sampling
            else:
                self._sampling.pop(name, None)
            await turn.give_way()
        self._tracing.set_sampling(self._sampling)

    def _take_over(self, document: GatewayDocument) -> None:
        before, self._gateway = self._gateway, document
        self._tracing.set_default(_sampling(document.trace))
        if document.log_level != (before.log_level if before is not None else None):
            level = document.log_level or self._log_level
            logs.set_level(level)
            log.info("the log level is %s", level)
        if self._guarding is not None:
            self._guarding.enforce(enforced=document.access == "enforce")

    async def notice(self, every_s: float = LOOK_EVERY_S) -> None:
        """Notice when the source goes away and comes back, whoever asks; until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(every_s)

    def _look(self) -> str:
        """Return why the source is away now."""
        now_ns = self._clock.now_ns()
        away = self._source.away
        if not away:
            self._away_since_ns = None
            self._heard_ns = now_ns if not self._source.from_disk else self._heard_ns
        elif self._away_since_ns is None:
            self._away_since_ns = now_ns
        return away

    @property
    def state(self) -> SourceState:
        """How long the source is away counts from when that was noticed."""
        away, now_ns = self._look(), self._clock.now_ns()
        since_ns = now_ns if self._away_since_ns is None else self._away_since_ns
        return SourceState(
            self._source.where,
            away,
            (now_ns - since_ns) / 1e9,
            (now_ns - self._heard_ns) / 1e9,
            self._source.from_disk,
            _problems(self._reconciler.desired),
        )


def _sampling(trace: Trace) -> Sampling:
    slow_ns = trace.slow_ms * 1_000_000 if trace.slow_ms is not None else None
    return Sampling(trace.ratio, trace.follow_parent, slow_ns, trace.errors)


def _problems(desired: Desired) -> Mapping[str, str]:
    if not desired.gateway_problem:
        return desired.problems
    return {GATEWAY_POLICY: desired.gateway_problem, **desired.problems}
