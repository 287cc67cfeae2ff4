"""All accounts of a gateway, and what else is read at a scrape.

Cardinality: only `open` makes series, and only names from the configuration are opened. A name that came
from a caller is looked up with `find`, which never makes an account for it: an unknown model counts under
`model=""`, an unknown version of a known model under `version=""`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.telemetry.account import VersionAccount
from gateway.telemetry.histogram import BURST_SIZE_BOUNDS, LATENCY_BOUNDS_NS, Histogram
from gateway.telemetry.series import Reading, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Accounts:
    """Changed only from the event loop's thread. `unknown` takes requests for models that do not exist."""

    def __init__(self) -> None:
        self.unknown = VersionAccount("", "")
        self.config_apply_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.loop_lag_seconds = Histogram(LATENCY_BOUNDS_NS)
        self.burst_size = Histogram(BURST_SIZE_BOUNDS)
        self.readings: dict[str, Reading] = {}  # {series name: reading}
        self._models: dict[str, dict[str, VersionAccount]] = {}  # {model: {version: account}}

    def open(self, model: str, version: str) -> VersionAccount:
        """The account of a configured version, made when it is not there yet."""
        versions = self._models.setdefault(model, {})
        account = versions.get(version)
        if account is None:
            account = versions[version] = VersionAccount(model, version)
        return account

    def find(self, model: str, version: str = "") -> VersionAccount:
        """The account that a caller's names lead to; see this module's first lines for names that
        do not exist."""
        versions = self._models.get(model)
        if versions is None:
            return self.unknown
        account = versions.get(version)
        if account is None:
            account = versions.get("")
            if account is None:
                account = versions[""] = VersionAccount(model, "")
        return account

    def close(self, model: str, version: str) -> None:
        """Drop the series of a version that left the configuration; whoever still holds its account
        may go on using it."""
        versions = self._models.get(model)
        if versions is None:
            return
        versions.pop(version, None)
        if not versions.keys() - {""}:
            del self._models[model]

    def __iter__(self) -> Iterator[VersionAccount]:
        """All accounts as of now, `unknown` first; accounts opened or closed while iterating do not
        matter."""
        return iter([self.unknown, *(a for versions in self._models.values() for a in versions.values())])

    def read_at_scrape(self, series: Series, read: Callable[[], Iterable[Sample]]) -> None:
        """Expose what `read` returns under `series`; the latest reader of a series counts."""
        self.readings[series.name] = Reading(series, read)
