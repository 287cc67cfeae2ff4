"""Which requests are traced, decided before any tracing library is involved."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)


class Sampling(msgspec.Struct, frozen=True):
    """`ratio` of the requests, in [0, 1]; a caller that brings a trace decides for itself where
    `follow_parent`."""

    ratio: float = 0.01
    follow_parent: bool = True

    def decide(self, parent_sampled: bool | None, draw: float) -> bool:
        """`parent_sampled` is None without a caller's trace; `draw` is uniform in [0, 1)."""
        if self.follow_parent and parent_sampled is not None:
            return parent_sampled
        return draw < self.ratio


def sampling_from_environment(environ: Mapping[str, str], default: Sampling) -> Sampling:
    """What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for, else `default`.

    Names: OpenTelemetry specification, "General SDK Configuration". What is not understood is ignored
    with a warning, as that specification demands.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return default
    follow_parent = name.startswith("parentbased_")
    match name.removeprefix("parentbased_"):
        case "always_on":
            return Sampling(1.0, follow_parent)
        case "always_off":
            return Sampling(0.0, follow_parent)
        case "traceidratio":
            return Sampling(_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "")), follow_parent)
        case _:
            _log.warning("OTEL_TRACES_SAMPLER=%s is not known, sampling %g instead", name, default.ratio)
            return default


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
