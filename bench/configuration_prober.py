"""A program that sends one request after the other on a connection of its own, and notes of each answer when
it came, the revision and the version that it names, and the version that its values are of.

    python -m bench.configuration_prober ADDRESS MODEL INTERVAL_MS FILE

Without a MODEL (`-`) it calls ServerLive, whose answer the gateway's event loop gives: what that takes is the
loop's lag and the way there. SIGTERM ends it; FILE then has all probes.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import msgspec

from bench.configuration_place import START_S, answering_version, request
from bench.endpoint import INFER, SERVICE
from bench.peers.process import Process
from protos import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

REVISION_KEY, VERSION_KEY = "crossgate-revision", "crossgate-version"
TIMEOUT_S = 10.0
# A gateway may be probed from its first moment on.
RECONNECT_SOON = [(f"grpc.{which}_reconnect_backoff_ms", 20) for which in ("initial", "min", "max")]


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """Times are of the machine's monotonic clock, which all processes share. `version` is what the answer
    says, `answered_by` what its values say. `error` is empty for an answer.
    """

    sent_ns: int
    answered_ns: int
    revision: int = 0
    version: str = ""
    answered_by: str = ""
    error: str = ""

    @property
    def took_us(self) -> float:
        return (self.answered_ns - self.sent_ns) / 1e3


@dataclass(frozen=True)
class Probing:
    address: str
    model: str  # '' for ServerLive
    interval_ms: float
    file: Path


class Prober:
    """Probes from `__enter__` until `__exit__`; `probes` is complete after that. Raises StartFailed."""

    def __init__(self, probing: Probing) -> None:
        self.probes: Sequence[Probe] = ()
        self._probing = probing
        self._process: Process | None = None

    def __enter__(self) -> Self:
        probing = self._probing
        probing.file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.configuration_prober", probing.address, probing.model or "-"]
        command += [str(probing.interval_ms), str(probing.file)]
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = Process("prober", command, probing.file.parent, environment)
        self._process.wait_line("probing", 30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "it was started"
        self._process.stop()
        if self._probing.file.exists():
            self.probes = msgspec.json.decode(self._probing.file.read_bytes(), type=list[Probe])


def main(probing: Probing) -> None:
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    probes: list[Probe] = []
    with grpc.insecure_channel(probing.address, RECONNECT_SOON) as channel:
        if probing.model:
            call = channel.unary_unary(INFER)
            body = request(probing.model)
        else:
            call = channel.unary_unary(f"{SERVICE}/ServerLive")
            body = pb.ServerLiveRequest().SerializeToString()
        print("probing", flush=True)
        grpc.channel_ready_future(channel).result(START_S)
        while not ended:
            probes.append(_probe(call, body, infers=bool(probing.model)))
            left_ms = probing.interval_ms - (time.monotonic_ns() - probes[-1].sent_ns) / 1e6
            if left_ms > 0:
                time.sleep(left_ms / 1e3)
    probing.file.write_bytes(msgspec.json.encode(probes))


def _probe(call: grpc.UnaryUnaryMultiCallable, body: bytes, *, infers: bool) -> Probe:
    sent_ns = time.monotonic_ns()
    try:
        answer, done = call.with_call(body, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return Probe(sent_ns, time.monotonic_ns(), error=f"{error.code().name}: {error.details()}")
    answered_ns = time.monotonic_ns()
    if not infers:
        return Probe(sent_ns, answered_ns)
    told = dict(done.trailing_metadata())
    by = answering_version(pb.ModelInferResponse.FromString(answer))
    return Probe(sent_ns, answered_ns, int(told.get(REVISION_KEY, 0)), str(told.get(VERSION_KEY, "")), by)


if __name__ == "__main__":
    address, model, interval_ms, file = sys.argv[1:]
    main(Probing(address, "" if model == "-" else model, float(interval_ms), Path(file)))
