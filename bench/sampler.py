"""Sends known requests beside the load, at a small fixed rate, and compares the answers."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import grpc

from bench.endpoint import Endpoint, describe
from bench.samples import decode, difference
from bench.validity import SampleReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bench.samples import Sample, Work

INTERVAL_S = 0.05


class Sampler:
    """Samples from `__enter__` until `__exit__`, in a thread; `report` is complete after that."""

    def __init__(self, address: str, work: Work, echoes: bool) -> None:
        self._address = address
        self._work = work
        self._echoes = echoes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self.report = SampleReport(0, ())

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Endpoint(self._address) as endpoint:
            for sample in itertools.cycle(self._work.samples):
                reason = self._check(endpoint, sample)
                wrong = (*self.report.wrong, reason) if reason else self.report.wrong
                self.report = SampleReport(self.report.sent + 1, wrong)
                if self._stop.wait(INTERVAL_S):
                    return

    def _check(self, endpoint: Endpoint, sample: Sample) -> str:
        return check(endpoint, sample, self._work, self._echoes)


def check(endpoint: Endpoint, sample: Sample, work: Work, echoes: bool) -> str:
    """What is wrong with the answer to one sample; empty if nothing."""
    model = work.scenario.model
    try:
        answer = endpoint.infer(sample.request)
    except grpc.RpcError as error:
        return f"a sampled request failed: {describe(error)}"
    if echoes:
        return "" if answer == sample.request else "a sampled echo differs from its request"
    try:
        deviation = difference(sample.expected, decode(answer, model.outputs))
    except (ValueError, KeyError) as error:
        return f"a sampled answer cannot be decoded: {error}"
    if deviation > model.tolerance:
        return f"a sampled answer is off by {deviation:.3g}, tolerated are {model.tolerance:.3g}"
    return ""


def check_all(endpoint: Endpoint, samples: Sequence[Sample], work: Work, echoes: bool) -> list[str]:
    return [reason for sample in samples if (reason := check(endpoint, sample, work, echoes))]
