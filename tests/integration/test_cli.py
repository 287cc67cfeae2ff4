"""The command line against a real gateway, and against none."""

from __future__ import annotations

import concurrent.futures
import json
import re
import socket
from importlib.metadata import version

import numpy as np
import pytest
import trustme
from onnx_models import affine, elementwise
from typed_commands import process, typed

pytestmark = pytest.mark.slow

# Lines of the log, and those of gRPC's C core, which writes its own.
NOT_OURS = re.compile(r"\{|[IWE]\d{4} ")
COMMANDS = ("serve", "models", "infer", "bench", "doctor", "demo")


@pytest.fixture(scope="module")
def gateway(module_models, start_module_gateway):
    module_models.write_version("scaled", "1", affine(2))
    module_models.write_version("scaled", "2", affine(3))
    module_models.write_document(
        "scaled", {"version_policy": {"all": True}, "labels": {"stable": "1"}, "traffic": {"split": {"2": 1}}}
    )
    module_models.write_version("ruled", "1", affine(2))
    module_models.write_version("ruled", "2", affine(3))
    beta = {"when": {"metadata": {"x-cohort": "beta"}}, "to": "1"}
    module_models.write_document(
        "ruled", {"version_policy": {"all": True}, "traffic": {"split": {"2": 1}, "rules": [beta]}}
    )
    module_models.write_version("texts", "1", elementwise("BYTES"))
    module_models.write_loopback("failing", options={"load": "fail"})
    return start_module_gateway(module_models)


@pytest.fixture(scope="module")
def nobody():
    """An address where nothing listens: the port is bound, not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def one_line_error(result):
    """The error of a failed command, which is one line and no traceback."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    (line,) = [each for each in result.stderr.splitlines() if not NOT_OURS.match(each)]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_models_lists_versions_with_state_and_reason(gateway):
    result = process("models", "--address", gateway.grpc)
    assert result.returncode == 0, result.stderr
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines() if line]
    assert rows[0] == ["model", "version", "state", "reason"]
    assert ["scaled", "1", "READY"] in rows
    assert ["scaled", "2", "READY"] in rows
    (failing,) = [row for row in rows if row[0] == "failing"]
    assert failing[2] == "UNAVAILABLE"
    assert "declared to fail at load" in failing[3]
    as_json = json.loads(typed("models", "--json", "-a", gateway.grpc).stdout)
    assert {"model": "scaled", "version": "2", "state": "READY", "reason": ""} in as_json


def test_infer_takes_json_and_arrays_in_files_and_shows_the_signature(gateway, tmp_path):
    x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text(json.dumps(x.tolist()))
    for value in (json.dumps(x.tolist()), f"@{tmp_path}/x.npy", f"@{tmp_path}/x.json"):
        result = typed("infer", "scaled", f"x={value}", "--json", "-a", gateway.grpc)
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        assert answer["outputs"] == {"y": (3 * x + 1).tolist()}
        assert (answer["model"], answer["version"]) == ("scaled", "2")
        assert answer["revision"] >= 1
    labelled = typed("infer", "scaled/stable", f"x=@{tmp_path}/x.npy", "--json", "-a", gateway.grpc)
    assert json.loads(labelled.stdout)["outputs"] == {"y": (2 * x + 1).tolist()}
    plain = typed("infer", "scaled/1", "x=[[1,2,3,4]]", "-o", "y", "-a", gateway.grpc)
    assert plain.stdout.splitlines()[0].startswith("scaled version 1, revision ")
    assert "[[3. 5. 7. 9.]]" in plain.stdout
    signature = typed("infer", "scaled", "-a", gateway.grpc).stdout
    assert re.search(r"input +x +FP32 +\[-1, 4\]", signature)
    assert re.search(r"output +y +FP32 +\[-1, 4\]", signature)


def test_infer_sends_metadata_that_rules_decide_by(gateway):
    for metadata, number in (((), "2"), (("-m", "x-other=1", "-m", "X-Cohort=beta"), "1")):
        answer = json.loads(
            typed("infer", "ruled", "x=[[1,2,3,4]]", *metadata, "--json", "-a", gateway.grpc).stdout
        )
        assert answer["version"] == number
    error = one_line_error(typed("infer", "ruled", "x=[[1]]", "-m", "beta", "-a", gateway.grpc))
    assert "--metadata 'beta' is not KEY=VALUE" in error


def test_infer_sends_and_prints_texts(gateway):
    result = process("infer", "texts", 'x=[["a","ü"]]', "-o", "changed", "--json", "-a", gateway.grpc)
    assert json.loads(result.stdout)["outputs"] == {"changed": [["aa", "üü"]]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("scaled", "z=[[1]]"), ("unknown input 'z'", "takes x")),
        (("scaled", "x"), ("'x' is not NAME=VALUE",)),
        (("scaled", "x=[[1,"), ("input x:",)),
        (("scaled", "x=@/no/such/file.npy"), ("input x:", "/no/such/file.npy")),
        (("scaled", 'x=[["a"]]'), ("input x:", "'a'")),
        (("scaled", "x=[[1]]"), ("INVALID_ARGUMENT", "[-1, 4]")),
        (("scaled", "x=[[1,2,3,4]]", "-o", "w"), ("unknown output 'w'", "y")),
        (("scaled/9", "x=[[1]]"), ("NOT_FOUND", "'9'", "stable")),
        (("scald", "x=[[1]]"), ("NOT_FOUND", "unknown model 'scald'", "scaled")),
        (("failing", "x=[[1]]"), ("UNAVAILABLE", "declared to fail at load")),
    ],
)
def test_infer_explains_what_is_wrong_in_one_line(gateway, arguments, words):
    error = one_line_error(typed("infer", *arguments, "-a", gateway.grpc))
    for word in words:
        assert word in error


@pytest.fixture(scope="module")
def secured(gateway, module_models, start_module_gateway, tmp_path_factory):
    """Another gateway with TLS, for the same models, and the folder of its files."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    options = [f"--tls-cert={folder}/tls.crt", f"--tls-key={folder}/tls.key", f"--grpc-unix={folder}/socket"]
    arguments = ["--grpc-port=0", "--http-port=0", *options]
    return start_module_gateway(module_models, arguments=arguments), folder


def test_commands_reach_a_gateway_over_tls_and_over_its_unix_socket(secured):
    gateway, folder = secured
    address = f"localhost:{gateway.grpc.rpartition(':')[2]}"
    models = typed("models", "-a", address, "--tls-ca", folder / "ca.crt")
    assert "scaled" in models.stdout, models
    for route in (("-a", address, "--tls-ca", folder / "ca.crt"), ("-a", f"unix:{folder}/socket")):
        result = typed("infer", "scaled", "x=[[1,2,3,4]]", "--json", *route)
        assert json.loads(result.stdout)["outputs"] == {"y": [[4, 7, 10, 13]]}, result
    missing = one_line_error(typed("models", "-a", address, "--tls-ca", folder / "nothing.crt"))
    assert "nothing.crt" in missing


@pytest.mark.parametrize("command", [("models",), ("infer", "scaled", "x=[[1]]", "--timeout-s", "2")])
def test_a_gateway_that_is_not_there_is_named(nobody, command):
    error = one_line_error(process(*command, "-a", nobody))
    assert nobody in error
    assert "UNAVAILABLE" in error


def test_doctor_says_what_is_there_as_json():
    result = process("doctor", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    runtimes = {runtime["name"]: runtime for runtime in found["runtimes"]}
    assert runtimes.keys() == {"onnxruntime", "openvino", "loopback"}
    assert re.match(r"\d+\.\d+", runtimes["onnxruntime"]["version"])
    devices = {device["device"]: device for device in found["devices"]}
    assert devices["cpu"]["usable"] == "yes"
    assert devices["openvino:CPU"]["usable"] == "yes"
    assert all(device["detail"] for device in found["devices"] if device["usable"] == "no")
    front_ends = {each["name"]: each for each in found["frontends"]}
    assert front_ends["grpcio"]["usable"] == "yes"
    assert front_ends["native"]["detail"]


def test_serve_refuses_wrong_settings_in_one_line(tmp_path):
    missing = tmp_path / "missing"
    # {what is said: (the directory, the options)}
    wrong = {
        "tpu": (tmp_path, "--slot", "tpu:0"),
        "unknown option 'threads'; there are cpus, capacity and memory": (
            tmp_path,
            "--slot",
            "cpu,threads=2",
        ),
        "CPU 4000 is not there": (tmp_path, "--slot", "cpu:4000"),
        f"{missing} is not a directory": (missing,),
        "none of debug, info, warning, error": (tmp_path, "--log-level", "loud"),
        "none of auto, native, grpcio": (tmp_path, "--frontend", "rust"),
        "--tls-key belong together": (tmp_path, "--tls-cert", tmp_path),
    }

    def refused(arguments):
        return one_line_error(process("serve", "--grpc-port=0", "--http-port=0", "--models", *arguments))

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        for said, error in zip(wrong, threads.map(refused, wrong.values()), strict=True):
            assert said in error


@pytest.mark.parametrize("listener", ["grpc", "http"])
def test_serve_names_a_port_that_is_in_use(tmp_path, listener):
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        ports = {"grpc": 0, "http": 0, listener: port}
        result = process(
            "serve", "--models", tmp_path, "--grpc-port", ports["grpc"], "--http-port", ports["http"]
        )
    assert str(port) in one_line_error(result)


def test_two_slots_of_one_name_are_refused(tmp_path):
    result = process(
        "serve", "--models", tmp_path, "--slot", "cpu", "--slot", "cpu", "--grpc-port", 0, "--http-port", 0
    )
    assert "--slot cpu is given twice" in one_line_error(result)


def test_help_names_every_command_and_its_options():
    result = process("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert command in result.stdout
    serve = typed("serve", "--help")
    assert serve.returncode == 0
    for option in ("--models", "--slot", "--grpc-port", "--http-port", "--drain-s", "--processes"):
        assert option in serve.stdout


def test_the_version_is_that_of_the_package():
    result = typed("--version")
    assert (result.returncode, result.stdout) == (0, f"crossgate {version('crossgate')}\n")


def test_a_url_for_an_address_is_refused_before_anything_is_sent():
    for command in (("models", "-a"), ("infer", "m", "-a"), ("bench", "-m", "m", "-a"), ("status", "-g")):
        assert "did you mean 127.0.0.1:1?" in one_line_error(typed(*command, "http://127.0.0.1:1"))


def test_a_wrong_option_ends_with_usage_and_status_2():
    result = process("models", "--adress", "x")
    assert result.returncode == 2
    assert "--address" in result.stderr
