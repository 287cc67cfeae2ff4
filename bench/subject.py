"""What is measured in turns: a server under load, or ONNX Runtime by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from bench.figures import Figures
    from bench.peers.server import Placement
    from bench.samples import Work


class Subject(Protocol):
    """Started once per scenario and idle while others are measured."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def versions(self) -> dict[str, str]: ...

    def start(self, work: Work, placement: Placement, folder: Path) -> None: ...

    def warm_up(self, seconds: float) -> None:
        """Finds out how much work fills `seconds`, while caches warm."""

    def measure(self) -> Figures: ...

    def stop(self) -> None: ...
