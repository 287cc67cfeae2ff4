"""What versions took on their slots when they were loaded before."""

from __future__ import annotations

from typing import Final

_MAX_KNOWN: Final = 4096  # specs
# A size that kept a version from being loaded for so long may have been measured while others ran: it is
# found out anew.
DOUBTED_NS: Final = 600_000_000_000


class KnownSizes:
    """By the key of a spec, so that a version that was unloaded is known when it comes back. Those learned
    longest ago are forgotten first.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, dict[str, int]] = {}  # {key: {slot: bytes}}
        self._learned_ns: dict[str, int] = {}  # {key: when}

    def learn(self, key: str, slot: str, size_bytes: int, now_ns: int) -> None:
        """A load took so much. Memory that the process had free already does not show: the most counts."""
        sizes = self._sizes.pop(key, {})
        sizes[slot] = max(size_bytes, sizes.get(slot, 0))
        self._sizes[key] = sizes
        self._learned_ns[key] = now_ns
        if len(self._sizes) > _MAX_KNOWN:
            self._forget(next(iter(self._sizes)))

    def of(self, key: str, slot: str) -> int:
        """Return what a version takes on a slot, or on another one where only that is known; else 0."""
        sizes = self._sizes.get(key, {})
        return sizes.get(slot, max(sizes.values(), default=0))

    def doubt(self, key: str, now_ns: int) -> bool:
        """Forget what was learned long ago; return whether that was so."""
        learned_ns = self._learned_ns.get(key)
        if learned_ns is None or now_ns - learned_ns < DOUBTED_NS:
            return False
        self._forget(key)
        return True

    def _forget(self, key: str) -> None:
        del self._sizes[key], self._learned_ns[key]
