"""What Prometheus scrapes: the whole collection as text, made in steps between which requests have their
turn.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.telemetry.collection import Collection
from gateway.telemetry.text import TextWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gateway.telemetry.accounts import Accounts

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exposition:
    """Accounts, readings and what is known of the process, with Triton's names too where `triton_names`."""

    content_type: Final = CONTENT_TYPE

    def __init__(self, accounts: Accounts, *, triton_names: bool = False) -> None:
        self.collection = Collection(accounts, triton_names=triton_names)

    @property
    def alternatives(self) -> Mapping[str, Callable[[], Iterable[bytes]]]:
        """{content type: what makes it in steps}, of the other formats."""
        return MappingProxyType({OPENMETRICS: self.openmetrics_steps})

    def render(self) -> bytes:
        """All metrics at once."""
        return b"".join(self.steps())

    def steps(self) -> Iterator[bytes]:
        """All metrics, piece by piece; other code may run, and record, between the pieces."""
        return self._write(TextWriter())

    def openmetrics_steps(self) -> Iterator[bytes]:
        """The same in OpenMetrics, with exemplars."""
        return self._write(TextWriter(openmetrics=True))

    def _write(self, writer: TextWriter) -> Iterator[bytes]:
        for part in self.collection.slices():
            yield writer.write(part)
        yield writer.end()
