"""`crossgate bench` against a scripted server."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from crossgate.cli import load
from crossgate.cli.bench import _mode
from crossgate.cli.commands import app
from crossgate.cli.load import ClosedLoop, LoadConfig, OpenLoop
from gateway.extension import Extension
from protos import inference_pb2 as pb

ANSWER = pb.ModelInferResponse(model_name="double", model_version="1")
SHORT = ("--duration", "0.1", "--warm-up", "0", "--concurrency", "2")


@pytest.fixture
def bench(generator):
    """Run the command to its end."""

    def run(*arguments):
        return CliRunner().invoke(app, ["bench", *map(str, arguments)])

    return run


def failed(result, status=1):
    assert result.exit_code == status, result.output
    return result.stderr


@pytest.mark.slow
def test_random_inputs_are_drawn_from_the_models_signature(bench, serve, tmp_path):
    server = serve()
    report = tmp_path / "report.json"
    result = bench("--url", server.address, "-m", "double", *SHORT, "-o", report, "--metadata", "X-User=me")
    assert result.exit_code == 0, result.output
    assert "double version 1 at" in result.stdout
    assert "random inputs, x FP32 [1, 2]" in result.stdout
    assert all(seen.metadata["x-user"] == "me" for seen in server.seen)
    figures = json.loads(report.read_text())
    assert figures["outcomes"] == {"OK": figures["requests"]}
    assert figures["config"]["mode"] == {"closed": {"streams": 1}}
    assert len(server.seen) == figures["sent_in_all"] + 1, "and one before, to see what the server says"


@pytest.mark.slow
def test_files_and_json_are_sent_as_they_are(bench, serve, tmp_path):
    server = serve()
    np.save(tmp_path / "x.npy", np.array([[1.5, 2]]))
    data = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [3, 4]}]}
    (tmp_path / "x.json").write_text(json.dumps(data))
    result = bench("--url", server.address, "-m", "double", "-i", tmp_path / "x.npy", *SHORT)
    assert result.exit_code == 0, result.output
    assert {seen.request.raw_input_contents[0] for seen in server.seen} == {
        np.array([1.5, 2], "<f4").tobytes()
    }
    server.seen.clear()
    arguments = (
        "--version",
        "1",
        "--rate",
        "50",
        "--timeout-ms",
        "5000",
        "--duration",
        "0.2",
        "--warm-up",
        0,
    )
    result = bench("--url", server.address, "-m", "double", "--json", tmp_path / "x.json", *arguments)
    assert result.exit_code == 0, result.output
    assert "started over 1 ms late" in result.stdout
    loaded = server.seen[1:]
    assert {seen.request.inputs[0].datatype for seen in loaded} == {"FP64"}
    assert {seen.request.model_version for seen in loaded} == {"1"}
    assert all(0 < seen.remaining_s <= 5 for seen in loaded)


@pytest.mark.slow
def test_unexpected_outcomes_are_named_and_make_it_fail(bench, serve, answer, fail):
    server = serve(answer(ANSWER), *[fail(grpc.StatusCode.INTERNAL, "broken model")] * 3)
    result = bench("--url", server.address, "-m", "double", *SHORT)
    assert "3 x INTERNAL: broken model" in failed(result)
    assert "INTERNAL" in result.stdout
    # a server that accepts what is malformed does not do as the protocol says
    result = bench("--url", serve().address, "-m", "double", *SHORT, "--malformed-share", 1)
    assert "x OK" in failed(result)


def test_a_wrong_request_ends_in_the_servers_words_before_the_load(bench, serve, fail):
    server = serve(fail(grpc.StatusCode.NOT_FOUND, "no model 'double'"))
    assert "NOT_FOUND: no model 'double'" in failed(bench("--url", server.address, "-m", "double", *SHORT))
    assert len(server.seen) == 1


def test_nobody_there_is_one_line(bench, dead_address):
    result = bench("--url", dead_address, "-m", "double", *SHORT, "--json", "nowhere.json")
    assert failed(result) == "error: there is no file nowhere.json\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--input", "nowhere.npy"), "there is no file nowhere.npy"),
        (("--input", "y=nowhere.npy"), "unknown input 'y'; the model takes x"),
        (("--shape", "x:1,3"), "shape [1, 3], the model takes [-1, 2]"),
        (("--shape", "x"), "NAME:SIZE"),
        (("--shape", "x:1,2", "--input", "a.npy"), "exclude each other"),
        (("--rate", "5", "--concurrency", "5"), "give one of them"),
        (("--concurrency", "5", "--connections", "2"), "no multiple"),
        (("--concurrency", "0"), "at least 1"),
        (("--metadata", "x"), "KEY=VALUE"),
        (("--metadata", "grpc-timeout=1S"), "grpc-timeout"),
        (("--threads", "9"), "threads"),
        (("--cancel-share", "0.6", "--malformed-share", "0.6"), "cancel_share"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(bench, serve, arguments, reason):
    line = failed(bench("--url", serve().address, "-m", "double", "--duration", "0.1", *arguments))
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert reason in line


def test_a_mistyped_option_ends_with_usage(bench):
    assert "--connections" in failed(bench("-m", "double", "--conections", "3"), status=2)


def test_without_the_extension_the_reason_is_given(monkeypatch):
    for extension, reason in (
        (Extension(None, "cargo was not found", ""), "cargo was not found"),
        (Extension(load, "", "debug"), "debug build"),
    ):
        monkeypatch.setattr(load, "find_extension", lambda extension=extension: extension)
        line = failed(CliRunner().invoke(app, ["bench", "-m", "double"]))
        assert reason in line
        assert "h2load" in line


@pytest.mark.parametrize(
    ("rate", "concurrency", "connections", "wanted"),
    [
        (None, None, None, (ClosedLoop(8), 4)),
        (None, 6, None, (ClosedLoop(2), 3)),
        (None, 7, None, (ClosedLoop(7), 1)),
        (None, 6, 2, (ClosedLoop(3), 2)),
        (20.0, None, None, (OpenLoop(20.0, 99), 4)),
        (20.0, None, 2, (OpenLoop(20.0, 99), 2)),
    ],
)
def test_requests_in_flight_are_spread_over_connections(rate, concurrency, connections, wanted):
    assert _mode(rate, concurrency, connections, 99) == wanted


def test_a_configuration_has_the_generators_names():
    config = json.loads(LoadConfig(target="a:1", mode=OpenLoop(5.0), metadata=(("a", "b"),)).to_json())
    assert config["mode"] == {"open": {"rate_per_s": 5.0, "max_in_flight": 1024}}
    assert config["metadata"] == [["a", "b"]]
