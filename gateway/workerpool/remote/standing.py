"""Whether a slot elsewhere stays a slot of this gateway: a pure function."""

from __future__ import annotations

from typing import NamedTuple

# So long a pool may be out of reach before models are no longer placed on it.
PATIENCE_NS = 10_000_000_000


class Standing(NamedTuple):
    """`registered`: in the store, at an address that may be connected to. `alike`: as the same slot as it was
    taken up. `unreachable_since_ns` is None while its pool answers, or nobody has asked it.
    """

    registered: bool
    alike: bool
    connected: bool
    unreachable_since_ns: int | None


def leaves_at_ns(standing: Standing, now_ns: int) -> int | None:
    """Return when it is to be given up, in the past for now; None while it is not.

    An established link outlives its registration: that may have ended because the store is away for the pool.
    """
    if standing.connected:
        return None
    if not standing.registered or not standing.alike:
        return now_ns
    if standing.unreachable_since_ns is not None:
        return standing.unreachable_since_ns + PATIENCE_NS
    return None
