"""What is wrong with a document: every finding, each with the path of the value that it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` is empty where it is about the whole document (a syntax error, not a mapping)."""

    path: str  # "traffic.split.canary", 'instances[0].options["a.b"]'
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class DocumentInvalid(Exception):
    """A document that may not be applied. `str(error)` lists every problem on a line of its own.

    Not a `GatewayError`: it fails a change of the configuration, never a request.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
