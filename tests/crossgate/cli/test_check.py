from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from crossgate.cli.check_reading import NotMetrics, Reading, read_metrics, read_readiness
from crossgate.cli.check_verdict import Limit, State, judge
from crossgate.cli.commands import app

METRICS = """
crossgate_models 2
crossgate_queue_depth{model="digits"} 3
crossgate_queue_depth{model="faces"} 0
crossgate_queue_limit{model="digits"} 100
crossgate_queue_limit{model="faces"} 100
crossgate_model_ready{model="digits",version="1"} 1
crossgate_model_ready{model="faces",version="1"} 1
crossgate_worker_up{worker="a",device="cpu"} 1
crossgate_worker_up{worker="b",device="cpu"} 1
crossgate_config_away_seconds 0
crossgate_config_problems 0
crossgate_requests_total{model="digits",version="1",outcome="ok"} 20
crossgate_requests_total{model="digits",version="1",outcome="failed"} 2
"""
READY = b'{"ready": true, "reasons": [], "notes": []}'
HALF, MOST = Limit(50, share=True), Limit(90, share=True)


def look(*changes, readiness=READY, model="", warning=HALF, critical=MOST):
    text = METRICS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return judge(Reading(read_readiness(readiness), read_metrics(text)), model, warning, critical)


def test_a_gateway_that_is_well_is_one_line_with_figures():
    assert look().line() == (
        "CROSSGATE OK: 2 models ready, longest queue 3 of 100 |queue=3;50;90;0 requests=22c;;;0 "
        "faults=2c;;;0 workers=2;;;0;2 restarts=0c;;;0"
    )


@pytest.mark.parametrize(
    ("change", "state", "text"),
    [
        (('depth{model="digits"} 3', 'depth{model="digits"} 49'), State.OK, "longest queue 49 of 100"),
        (('depth{model="digits"} 3', 'depth{model="digits"} 50'), State.WARNING, "queue of digits has 50"),
        (('depth{model="digits"} 3', 'depth{model="digits"} 90'), State.CRITICAL, "queue of digits has 90"),
        (('{worker="a",device="cpu"} 1', '{worker="a",device="cpu"} 0'), State.WARNING, "worker down: a"),
        (('device="cpu"} 1', 'device="cpu"} 0'), State.CRITICAL, "worker down: a, b"),
        (("away_seconds 0", "away_seconds 61"), State.WARNING, "not followed for 61 s"),
        (("problems 0", "problems 2"), State.WARNING, "2 documents are not valid"),
        (
            ('ready{model="faces",version="1"} 1', 'ready{model="faces",version="1"} 0'),
            State.WARNING,
            "faces",
        ),
    ],
)
def test_what_is_amiss_is_named_and_has_its_state(change, state, text):
    verdict = look(change)
    assert verdict.state is state
    assert text in verdict.line()


def test_a_named_model_that_is_not_ready_is_critical():
    change = ('ready{model="faces",version="1"} 1', 'ready{model="faces",version="1"} 0')
    assert look(change, model="faces").state is State.CRITICAL
    assert look(change, model="digits").state is State.OK


def test_a_gateway_that_is_not_ready_is_critical_and_says_why_on_one_line():
    verdict = look(readiness=b'{"ready": false, "reasons": ["a\\nb | c"], "notes": []}')
    assert verdict.state is State.CRITICAL
    assert verdict.line().startswith("CROSSGATE CRITICAL: not ready: a b c |queue=")


def test_a_mistyped_model_is_told_the_nearest():
    with pytest.raises(ValueError, match=r'no figure of a model "digit"; did you mean "digits"'):
        look(model="digit")


def test_limits_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match=r"--warning .95 requests. is above --critical .90 requests."):
        look(warning=Limit(95, share=False))


@pytest.mark.parametrize("text", ["", "-1", "50 %", "101%", "many", "nan"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match="--warning"):
        Limit.parse("--warning", text)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"ready": 1}', b"\xff"])
def test_another_program_is_no_gateway(body):
    with pytest.raises(NotMetrics):
        read_readiness(body)
    with pytest.raises(NotMetrics):
        read_metrics(body.decode(errors="replace"))


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/readyz"
        body = json.dumps({"ready": False, "reasons": ["draining"], "notes": []}) if ready else METRICS
        self.send_response(503 if ready else 200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check(*arguments):
    return CliRunner().invoke(app, ["check", *arguments])


def test_the_exit_status_is_the_state(endpoint):
    done = check("--http", endpoint)
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert done.output.startswith("CROSSGATE CRITICAL: not ready: draining |queue=3;50;90;0")


def test_no_answer_is_critical():
    done = check("--http", "127.0.0.1:1", "--timeout-s", "2")
    assert done.exit_code == 2
    assert "does not answer /readyz" in done.output


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--timeout-s", "x"], ["--http", "http://a:1"], ["--warning", "lots"]]
)
def test_wrong_usage_is_unknown(arguments):
    assert check(*arguments).exit_code == 3
