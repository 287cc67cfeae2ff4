"""The load generator through its binding, against a gateway in Python and against nobody."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from crossgate.cli.load import ClosedLoop, LoadConfig, OpenLoop, run_load
from crossgate.cli.payloads import malformed_of
from crossgate.request import InferRequest
from protos import inference_pb2 as pb

sys.path.append(str(Path(__file__).parents[1] / "integration"))

from live_gateway import LiveGateway
from model_directory import ModelDirectory

try:
    from gateway import _native
except ImportError:
    if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
        raise
    pytest.skip("gateway._native is not built", allow_module_level=True)

pytestmark = pytest.mark.slow

VALUES = [np.full((1, 4), value, np.float32) for value in (1.5, 2.5, 3.5)]
REQUESTS = [InferRequest("same", {"INPUT0": value}).to_message() for value in VALUES]
BODIES = [request.SerializeToString() for request in REQUESTS]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """One with the front end in Python."""
    models = ModelDirectory(tmp_path_factory.mktemp("models"))
    models.write_loopback("same")
    arguments = ("--grpc-port=0", "--http-port=0", "--frontend=grpcio")
    log = tmp_path_factory.mktemp("log") / "gateway.log"
    with LiveGateway(models.root, log, arguments=arguments) as live:
        yield live


@pytest.fixture
def nobody():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_every_answer_is_the_models(gateway):
    config = LoadConfig(target=gateway.grpc, mode=ClosedLoop(4), connections=2, requests=300, sample=30)
    result = run_load(config, BODIES)
    assert result.report.outcomes == {"OK": 300}
    assert result.report.unexpected == 0
    assert [body.ok for body in result.report.bodies] == pytest.approx([100, 100, 100], abs=1)
    assert len(result.answers) == 30
    for body, answer in zip(result.report.sampled_bodies, result.answers, strict=True):
        response = pb.ModelInferResponse.FromString(answer)
        assert response.raw_output_contents[0] == VALUES[body].tobytes()
    assert json.loads(result.json)["config"]["requests"] == 300


def test_cancelled_and_malformed_requests_are_counted_apart(gateway):
    wrong = malformed_of(REQUESTS[0])
    shares = {"cancel_share": 0.1, "malformed_share": 0.1, "malformed_bodies": len(wrong), "seed": 1}
    config = LoadConfig(
        target=gateway.grpc, mode=OpenLoop(400.0), duration_s=1.0, warm_up_s=0.2, timeout_ms=10_000, **shares
    )
    seconds = []
    report = run_load(config, [*BODIES, *wrong], seconds.append).report
    assert report.unexpected == report.warm_up.unexpected == 0, report.errors
    assert report.malformed.sent == report.malformed.rejected > 10
    assert report.cancelled.sent > 3
    assert report.outcomes["OK"] > 200
    assert report.latency_us.p50 > 0
    assert [second.second for second in seconds] == [-1, 0]
    # one that ends in the last moment may count for the second after
    assert report.series[0].requests_per_s == pytest.approx(report.requests_per_s, rel=0.05)


def test_unknown_models_are_unexpected_with_the_gateways_words(gateway):
    body = InferRequest("nowhere", {"INPUT0": VALUES[0]}).to_message().SerializeToString()
    report = run_load(LoadConfig(target=gateway.grpc, mode=ClosedLoop(1), requests=5), [body]).report
    assert report.outcomes == {"NOT_FOUND": 5}
    assert report.unexpected == 5
    assert "nowhere" in report.errors[0].message
    assert report.latency_us is None


def test_what_progress_raises_ends_the_run_and_is_raised(gateway):
    def complain(second):
        raise LookupError(second.second)

    config = LoadConfig(target=gateway.grpc, mode=ClosedLoop(1), duration_s=600.0)
    with pytest.raises(LookupError):
        run_load(config, BODIES, complain)


def test_a_signal_ends_the_run(gateway):
    """The handler of SIGINT raises KeyboardInterrupt; other threads run meanwhile, one of them sends it."""
    config = LoadConfig(target=gateway.grpc, mode=ClosedLoop(1), duration_s=600.0)
    killer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    killer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_load(config, BODIES)
    finally:
        killer.cancel()


def test_nobody_there_is_a_connection_error(nobody):
    with pytest.raises(ConnectionError, match=f"cannot connect to {nobody}"):
        run_load(LoadConfig(target=nobody, mode=ClosedLoop(1), duration_s=1.0), BODIES)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("{", "EOF"),
        ("{}", "target"),
        ('{"target": "a:1", "mode": {"closed": {"streams": 1}}, "requests": 1, "tiemout": 1}', "tiemout"),
        ('{"target": "a", "mode": {"closed": {"streams": 1}}, "requests": 1}', "host:port"),
    ],
)
def test_a_wrong_configuration_is_a_value_error(config, reason):
    with pytest.raises(ValueError, match=reason):
        _native.load(config, BODIES, None)


def test_bodies_must_be_bytes():
    with pytest.raises(TypeError):
        _native.load("{}", ["text"], None)
