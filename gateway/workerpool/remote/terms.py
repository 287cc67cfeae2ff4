"""How a gateway links to workers elsewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """`gateway` is its name, for the pool's log. The bytes are those of an arena; `budget_bytes` bounds also
    what the outputs of one batch may have.
    """

    gateway: str
    segment_bytes: int
    budget_bytes: int
