"""Which requests are traced, decided before any tracing library is involved."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.telemetry.outcome import SERVER_FAULTS, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

DEFAULT_SLOW_NS: Final = 1_000_000_000

Errors = Literal["server", "all", "none"]


class SampledBy(StrEnum):
    """Why a request is traced. The first two are decided on arrival, the others when it has ended."""

    RATIO = "ratio"
    CALLER = "caller"
    SLOW = "slow"
    ERROR = "error"


class Sampler(msgspec.Struct, frozen=True):
    """`ratio` of the requests, in [0, 1]; a caller that brings a trace decides for itself where
    `follow_parent`. Besides, after the fact, unless the caller has decided otherwise: what took longer than
    `slow_ns`, and of what failed the server's `errors`, all, or none.
    """

    ratio: float = 0.01
    follow_parent: bool = True
    slow_ns: int = DEFAULT_SLOW_NS
    errors: Errors = "server"

    def decide(self, parent_sampled: bool | None, draw: float) -> bool:
        """`parent_sampled` is None without a caller's trace; `draw` is uniform in [0, 1)."""
        if self.follow_parent and parent_sampled is not None:
            return parent_sampled
        return draw < self.ratio

    def decide_late(self, parent_sampled: bool | None) -> bool:
        """Whether a slow or failed request may be traced that was not sampled on arrival."""
        return not (self.follow_parent and parent_sampled is False)

    def minds(self, outcome: Outcome) -> bool:
        """Whether a request that ended like this is traced after the fact."""
        if self.errors == "server":
            return outcome in SERVER_FAULTS
        return self.errors == "all" and outcome is not Outcome.OK


class Sampling(msgspec.Struct, frozen=True):
    """What a document or the environment says about sampling; None is what stands below it."""

    ratio: float | None = None
    follow_parent: bool | None = None
    slow_ns: int | None = None
    errors: Errors | None = None

    def over(self, below: Sampler) -> Sampler:
        """Return `below` with what is said here."""
        return Sampler(
            below.ratio if self.ratio is None else self.ratio,
            below.follow_parent if self.follow_parent is None else self.follow_parent,
            below.slow_ns if self.slow_ns is None else self.slow_ns,
            below.errors if self.errors is None else self.errors,
        )


def sampling_from_environment(environ: Mapping[str, str]) -> Sampling:
    """What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for; nothing where they are not set.

    Names: OpenTelemetry specification, "General SDK Configuration". What is not understood is ignored
    with a warning, as that specification demands.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return Sampling()
    follow_parent = name.startswith("parentbased_")
    match name.removeprefix("parentbased_"):
        case "always_on":
            return Sampling(1.0, follow_parent)
        case "always_off":
            return Sampling(0.0, follow_parent)
        case "traceidratio":
            return Sampling(_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "")), follow_parent)
        case _:
            _log.warning("OTEL_TRACES_SAMPLER=%s is not known, and is ignored", name)
            return Sampling()


def _ratio(text: str) -> float:
    if not text.strip():
        return 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        _log.warning("OTEL_TRACES_SAMPLER_ARG=%s is not in [0, 1], sampling everything", text)
        return 1.0
    return ratio
