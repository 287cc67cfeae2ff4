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

    from bench.peers.server import Server
    from bench.samples import Sample, Work

INTERVAL_S = 0.05


class Sampler:
    """Samples from `__enter__` until `__exit__`, in a thread; `report` is complete after that."""

    def __init__(self, server: Server, work: Work) -> None:
        self._server = server
        self._work = work
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
        with Endpoint(self._server.address) as endpoint:
            for sample in itertools.cycle(self._work.samples):
                reason = check(endpoint, sample, self._work, self._server)
                wrong = (*self.report.wrong, reason) if reason else self.report.wrong
                self.report = SampleReport(self.report.sent + 1, wrong)
                if self._stop.wait(INTERVAL_S):
                    return


def check(endpoint: Endpoint, sample: Sample, work: Work, server: Server | None = None) -> str:
    """What is wrong with the answer to one sample; empty if nothing. Without a `server` it is the model's."""
    model = work.scenario.model
    try:
        answer = endpoint.infer(sample.request)
    except grpc.RpcError as error:
        return f"a sampled request failed: {describe(error)}"
    wanted = None if server is None else server.fixed_answer(sample.request)
    if wanted is not None:
        return "" if answer == wanted else "a sampled answer is not the one that is always given"
    try:
        deviation = difference(sample.expected, decode(answer, model.outputs))
    except (ValueError, KeyError) as error:
        return f"a sampled answer cannot be decoded: {error}"
    if deviation > model.tolerance:
        return f"a sampled answer is off by {deviation:.3g}, tolerated are {model.tolerance:.3g}"
    return ""


def check_all(endpoint: Endpoint, samples: Sequence[Sample], work: Work, server: Server) -> list[str]:
    return [reason for sample in samples if (reason := check(endpoint, sample, work, server))]
