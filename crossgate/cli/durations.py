"""Durations as people write them: `90s`, `15m`, `1h30m`."""

from __future__ import annotations

import re

_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|d|h|m|s)")


def parse_duration(text: str) -> float:
    """Return seconds, more than 0. Units come in falling order, each once: d, h, m, s, ms.

    Raises:
        ValueError: it is no duration; the message says what is one.
    """
    cleaned = text.strip().lower()
    units: list[str] = []
    at, seconds = 0, 0.0
    while (part := _PART.match(cleaned, at)) is not None:
        seconds += float(part[1]) * _UNITS_S[part[2]]
        units.append(part[2])
        at = part.end()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", cleaned):
        raise ValueError(f"{text!r} has no unit: write {cleaned}s, {cleaned}m or {cleaned}h")
    in_order = units == [unit for unit in _UNITS_S if unit in units]
    if not units or at != len(cleaned) or not in_order or seconds <= 0:
        raise ValueError(f"{text!r} is no duration such as 90s, 15m, 2h or 1h30m")
    return seconds


def show_duration(seconds: float) -> str:
    """Return a duration in its two largest units, rounded down: `1h 30m`, `12s`; `450 ms` below a second."""
    if seconds < 1:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    left = int(seconds)
    shown: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_UNITS_S[unit]))
        if count and len(shown) < 2:
            shown.append(f"{count}{unit}")
        elif shown:
            break  # 2h 5s would look more exact than it is
    return " ".join(shown)
