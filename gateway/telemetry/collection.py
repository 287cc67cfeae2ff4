"""All that is exposed, in slices: one way through it for every format."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from gateway.telemetry import series, triton
from gateway.telemetry.families import FAMILIES, NO_EXEMPLARS
from gateway.telemetry.series import Distribution, Sample, Series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.series import Reading

_ACCOUNTS_PER_SLICE: Final = 20
_SAMPLES_PER_SLICE: Final = 250

_log = logging.getLogger(__name__)


class Slice(NamedTuple):
    """Some points of a series; all slices of a series follow each other. `since_ns` is when each of the
    points began to count, since the epoch; empty: when the process did.
    """

    series: Series
    points: Sequence[Sample | Distribution]
    since_ns: Sequence[int] = ()


class Collection:
    """`triton`: with Triton's names too. Reads on the event loop's thread only."""

    def __init__(self, accounts: Accounts, *, triton_names: bool = False) -> None:
        self.began_ns = time.time_ns()
        self._accounts = accounts
        self._families = (*FAMILIES, *triton.FAMILIES) if triton_names else FAMILIES
        self._read_errors: dict[str, int] = {}  # {series name: scrapes without it}
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def slices(self) -> Iterator[Slice]:
        """Everything, in slices of well under a millisecond; other code may run, and record, in between."""
        accounts = list(self._accounts)
        parts = [accounts[i : i + _ACCOUNTS_PER_SLICE] for i in range(0, len(accounts), _ACCOUNTS_PER_SLICE)]
        for family, points_of in self._families:
            for part in parts:
                points: list[Sample | Distribution] = []
                since_ns: list[int] = []
                for account in part:
                    found = points_of(account)
                    points += found
                    since_ns += [account.opened_ns] * (len(points) - len(since_ns))
                yield Slice(family, points, since_ns)
        yield from self._gateway()
        for reading in list(self._accounts.readings.values()):
            samples = self._read(reading)
            if samples is not None:
                for start in range(0, max(len(samples), 1), _SAMPLES_PER_SLICE):
                    yield Slice(reading.series, samples[start : start + _SAMPLES_PER_SLICE])
        yield Slice(series.SCRAPE_ERRORS, [Sample((name,), n) for name, n in self._read_errors.items()])
        yield from self._of_process()

    def _gateway(self) -> Iterator[Slice]:
        """What is counted for the gateway as a whole."""
        accounts = self._accounts
        yield Slice(series.CONFIG_APPLY, [Distribution((), accounts.config_apply_seconds, NO_EXEMPLARS)])
        yield Slice(series.LOOP_LAG, [Distribution((), accounts.loop_lag_seconds, NO_EXEMPLARS)])
        yield Slice(series.BURST_SIZE, [Distribution((), accounts.burst_size, NO_EXEMPLARS)])

    def _read(self, reading: Reading) -> Sequence[Sample] | None:
        """The samples of one reading; a source that fails costs its own series only."""
        try:
            samples = list(reading.read())
            for labels, value in samples:
                if len(labels) != len(reading.series.labels):
                    raise ValueError(f"{labels} are no values for {reading.series.labels}")
                float(value)
        except Exception:
            name = reading.series.name
            self._read_errors[name] = self._read_errors.get(name, 0) + 1
            _log.warning("cannot read the metric %s", name, exc_info=True)
            return None
        return samples

    def _of_process(self) -> Iterator[Slice]:
        """What prometheus_client knows of the process and of its garbage collector."""
        for metric in self._process.collect():
            kind: Literal["counter", "gauge"] = "counter" if metric.type == "counter" else "gauge"
            name = f"{metric.name}_total" if kind == "counter" else metric.name
            labels = tuple(metric.samples[0].labels) if metric.samples else ()
            samples = [
                Sample(tuple([each.labels[label] for label in labels]), each.value)
                for each in metric.samples
                if each.name == name
            ]
            yield Slice(Series(name, metric.documentation, kind, labels), samples)
