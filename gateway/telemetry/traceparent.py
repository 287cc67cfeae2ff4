"""The W3C `traceparent` header: https://www.w3.org/TR/trace-context/ (level 1)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_FORMAT: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL
)


class TraceParent(msgspec.Struct, frozen=True):
    """The caller's span."""

    trace_id: int
    span_id: int
    sampled: bool


def parse_traceparent(header: str) -> TraceParent | None:
    """What `header` says; None when it is invalid, which by the standard is the same as not there.

    A version above 00 is read as far as 00 is known; only such a version may have something after the flags.
    """
    match = _FORMAT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if trace == 0 or span == 0:
        return None
    return TraceParent(trace, span, bool(int(flags, 16) & 1))
