"""What a scenario of configuration has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.figures import DISTURBED_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Figure:
    """`value` None: it could not be measured. Without `at_most` nothing is wanted of it."""

    label: str
    value: float | None
    unit: str = ""
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        if self.at_most is None:
            return None
        return self.value is not None and self.value <= self.at_most


@dataclass(frozen=True)
class Outcome:
    """`void` says why nothing of it counts; `others_share` is the share of the machine's CPU time that other
    work took.
    """

    name: str
    how: str
    figures: tuple[Figure, ...]
    void: tuple[str, ...] = ()
    others_share: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not count, disturbance included."""
        if self.others_share <= DISTURBED_SHARE:
            return self.void
        return (*self.void, f"disturbed: other work took {self.others_share:.0%} of the CPUs")

    @property
    def failed(self) -> bool:
        return bool(self.reasons) or any(figure.met is False for figure in self.figures)
