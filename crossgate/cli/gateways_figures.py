"""Numbers as tables show them: three digits and a unit."""

from __future__ import annotations

_NONE = "-"


def rate(per_second: float) -> str:
    """0, 0.02, 3.1, 45, 1.2k, 41k, 1.3M."""
    if per_second >= 999_500:
        return f"{_digits(per_second / 1e6)}M"
    if per_second >= 999.5:
        return f"{_digits(per_second / 1e3)}k"
    return _digits(per_second)


def seconds(value: float | None) -> str:
    """250us, 1.3ms, 45ms, 2.5s; a dash for none."""
    if value is None:
        return _NONE
    if value < 0.0009995:
        return f"{_digits(value * 1e6)}us"
    if value < 0.9995:
        return f"{_digits(value * 1e3)}ms"
    return f"{_digits(value)}s"


def size(size_bytes: int) -> str:
    """0, 812 B, 4.2 KiB, 45 MiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{_digits(value)} {unit}" if value else "0"
        value /= 1024
    return f"{_digits(value)} TiB"


def number(value: float | None) -> str:
    return _NONE if value is None else _digits(value)


def percent(share: float | None) -> str:
    """Of a number from 0 to 100; a dash for none."""
    return _NONE if share is None else f"{_digits(share)}%"


def _digits(value: float) -> str:
    if value >= 9.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}" if value >= 0.001 else "<0.001"
