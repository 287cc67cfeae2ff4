"""Operators' commands, against both stores and gateways that follow them."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from live_gateway import LiveGateway
from onnx_models import affine
from typed_commands import process, typed

sys.path.append(str(Path(__file__).parents[1] / "store"))

from etcd_process import EtcdProcess

pytestmark = pytest.mark.slow

LIMIT_S = 60


class StoreGateway(LiveGateway):
    """A gateway that follows a store."""

    def __init__(self, url, folder, name):
        super().__init__(folder, folder / f"{name}.log")
        self._command = [part for part in self._command if not part.startswith("--models=")]
        self._command += [f"--store={url}", f"--name={name}", f"--state-folder={folder / name}"]


class Operator:
    """Runs commands as somebody."""

    def __init__(self, url, folder, by):
        self.environment = {
            "CROSSGATE_STORE": url,
            "CROSSGATE_BY": by,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "EDITOR": "false",
        }

    def __call__(self, *arguments, status=0, text=None, run=typed):
        result = run(*arguments, environment=self.environment, text=text)
        assert result.returncode == status, result
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture(params=["local", pytest.param("etcd", marks=pytest.mark.long)])
def url(request, tmp_path):
    """An empty store of each kind."""
    if request.param == "local":
        return str(tmp_path / "store.db")
    return request.getfixturevalue("etcd").at(tmp_path.name)


@pytest.fixture
def anna(url, tmp_path):
    return Operator(url, tmp_path, "anna")


@pytest.fixture
def bert(url, tmp_path):
    return Operator(url, tmp_path, "bert")


@pytest.fixture
def digits(tmp_path):
    """The file of a model with two versions, which answer 2x + 1 and 3x + 1."""
    versions = {}
    for version, scale in (("1", 2), ("2", 3)):
        path = tmp_path / f"digits-{version}.onnx"
        path.write_bytes(affine(scale))
        versions[version] = {"source": path.as_uri()}
    return Document(
        tmp_path / "digits.yaml",
        {
            "model": "digits",
            "versions": versions,
            "labels": {"stable": "1", "canary": "2"},
            "traffic": {"split": {"stable": 1}},
        },
    )


class Document:
    """A file that the test changes."""

    def __init__(self, path, data):
        self.path = path
        self.data = data
        self.write()

    def write(self, **fields):
        self.data |= fields
        self.path.write_text(yaml.safe_dump(self.data))
        return self.path


def test_a_change_goes_from_a_file_through_the_history_and_back(anna, bert, digits):
    assert "digits: generation 1" in anna("apply", "-f", digits.path, "-m", "first")
    assert anna("apply", "-f", digits.path, run=process) == "unchanged: digits\n"
    said = bert("set", "digits", "traffic.split.canary=1", "-m", "try it")
    assert "(by bert: try it)" in said
    digits.write(retry="never")
    assert "set by bert" in anna("apply", "-f", digits.path, status=3)
    anna("apply", "-f", digits.path, "--merge")
    data = json.loads(anna("get", "digits", "-o", "json"))
    assert data == digits.data | {"traffic": {"split": {"stable": 1, "canary": 1}}}
    assert "is as in generation 1 again" in anna("rollback", "digits", "--to", "g1", run=process)
    rows = json.loads(anna("history", "digits", "--json", run=process))
    assert [(row["generation"], row["by"], row["action"]) for row in rows] == [
        (1, "anna", "apply"),
        (2, "bert", "set"),
        (3, "anna", "apply"),
        (4, "anna", "rollback"),
    ]
    assert yaml.safe_load(anna("show", "digits", "--revision", rows[1]["revision"], run=process))["traffic"][
        "split"
    ] == {
        "stable": 1,
        "canary": 1,
    }
    assert 'did you mean "digits"' in anna("get", "digts", status=1)


def test_ten_operators_at_once_lose_nothing(anna, url, tmp_path, digits):
    anna("apply", "-f", digits.path)
    operators = [Operator(url, tmp_path, f"operator-{i}") for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        works = [
            threads.submit(operator, "set", "digits", f"labels.l{i}=1", run=process)
            for i, operator in enumerate(operators)
        ]
        for work in works:
            assert "digits: generation" in work.result()
    labels = json.loads(anna("get", "digits", "-o", "json"))["labels"]
    assert {f"l{i}" for i in range(10)} <= labels.keys()
    rows = json.loads(anna("history", "digits", "--json", "-n", 100))
    assert [row["generation"] for row in rows] == list(range(1, 12))


def test_a_directory_goes_into_another_store_and_back(anna, tmp_path, digits):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(130):
        (folder / f"m{i}.yaml").write_text(f"model: m{i}\n")
    said = anna("sync", folder, "--prune", "-m", "commit 1a2b", run=process)
    assert "transaction 3 of 3: 10 documents written" in said
    (folder / "m0.yaml").unlink()
    assert "m0 (deleted)" in anna("sync", folder, "--prune", "--dry-run")
    assert "1 deleted" in anna("sync", folder, "--prune")
    exported = anna("export", "-", run=process)
    other = str(tmp_path / "other.db")
    anna("import", "-", "--store", other, text=exported, run=process)
    assert anna("export", "-", "--store", other) == exported
    assert len(anna("get", "-o", "names", "--store", other).split()) == 129


def test_names_complete_in_a_shell(anna, digits):
    anna("apply", "-f", digits.path)
    environment = os.environ | anna.environment
    environment |= {
        "_CROSSGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": "crossgate get di",
        "COMP_CWORD": "2",
    }
    program = "import sys; sys.argv = ['crossgate']; from crossgate.cli import main; main()"
    command = [sys.executable, "-P", "-c", program]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
    )
    assert (result.stdout.split(), result.stderr) == (["digits"], "")
    environment["CROSSGATE_STORE"] = "etcd://127.0.0.1:1/nobody"
    nobody = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
    )
    assert (nobody.stdout.strip(), nobody.stderr) == ("", "")


def test_a_store_that_is_away_is_named_in_one_line(anna, digits):
    def told(*command):
        return anna(*command, "--store", "etcd://127.0.0.1:1/nobody", status=1, run=process)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:  # each waits for some seconds
        works = [threads.submit(told, "get"), threads.submit(told, "apply", "-f", digits.path)]
    for said in (work.result() for work in works):
        (line,) = said.splitlines()
        assert line.startswith("error: ")
        assert "127.0.0.1:1" in line


@pytest.fixture
def gateways(url, anna, tmp_path):
    """Two gateways that follow the store; they start with an empty one."""
    anna("import", "-", text="log_level: info\n")
    with StoreGateway(url, tmp_path, "one") as one, StoreGateway(url, tmp_path, "two") as two:
        yield one, two


def answer(gateway):
    """What the model makes of 1, 2, 3, 4 at a gateway."""
    with gateway.client() as client:
        return np.ravel(client.infer("digits", {"x": np.array([[1, 2, 3, 4]], np.float32)})["y"]).tolist()


def test_waiting_ends_when_every_gateway_serves_the_change_or_says_why_not(
    anna, bert, url, tmp_path, digits, gateways
):
    said = anna("apply", "-f", digits.path, "--wait")
    assert "applied on 2 gateways: one, two" in said
    assert [answer(gateway) for gateway in gateways] == [[3, 5, 7, 9]] * 2

    said = anna("apply", "-f", digits.write(traffic={"split": {"canary": 1}}), "--dry-run")
    assert "version 1 100 % -> 0 %" in said
    anna("apply", "-f", digits.path, "--wait")
    assert [answer(gateway) for gateway in gateways] == [[4, 7, 10, 13]] * 2

    assert "applied on 2 gateways" in anna(
        "set", "digits", "traffic.split={stable: 1}", "--for", "1h", "--wait"
    )
    assert [answer(gateway) for gateway in gateways] == [[3, 5, 7, 9]] * 2
    assert "applied on 2 gateways" in bert("revert", "digits", "--wait", run=process)
    assert [answer(gateway) for gateway in gateways] == [[4, 7, 10, 13]] * 2

    missing = {"3": {"source": (tmp_path / "missing.onnx").as_uri()}}
    said = anna("apply", "-f", digits.write(versions=digits.data["versions"] | missing), "--wait", status=1)
    assert "cannot be applied" in said
    assert "missing.onnx" in said
    assert [answer(gateway) for gateway in gateways] == [[4, 7, 10, 13]] * 2
    said = anna("apply", "-f", digits.write(labels={"stable": "1", "canary": "3"}), "--wait", status=1)
    planned = anna("set", "digits", "retry=never", "--dry-run")
    assert re.search(
        r"plan: gateway one has the routing of revision \d+ in force.* waits for version 3", planned
    )
    assert re.search(
        r"plan: gateway two has the routing of revision \d+ in force.* waits for version 3", planned
    )
    explained = anna("explain", "digits", "-g", "one")
    assert re.search(
        r"the routing of revision \d+ waits for version 3.*; that of revision \d+ decides", explained
    )
    anna("rollback", "digits", "--to", "g2", "--wait")

    assert "applied on 2 gateways" in anna("delete", "digits", "--wait", run=process)
    assert not re.search(r"digits", anna("get"))


def test_who_may_see_nothing_is_told_so(anna, digits, gateways):
    assert "applied on 2 gateways: one, two" in anna("import", digits.path, "--wait")
    token = "secret-of-the-test"
    readers = {"access": "readers", "tokens": [f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"]}
    readers["allow"] = [{"models": ["digits"], "actions": ["read", "infer"]}]
    anna("apply", "-f", "-", text=json.dumps(readers))
    anna("set", "policies/gateway", "access=enforce", "--wait")
    address = gateways[0].grpc
    said = anna("models", "-a", address)
    assert "note: there is nothing that you may see" in said
    assert "CROSSGATE_TOKEN" in said
    refused = anna("infer", "digits", "-a", address, status=1)
    assert "UNAUTHENTICATED" in refused
    assert "CROSSGATE_TOKEN" in refused
    anna.environment["CROSSGATE_TOKEN"] = token
    said = anna("models", "-a", address)
    assert re.search(r"digits +1 +READY", said)
    assert "note" not in said


def test_waiting_without_gateways_says_so_and_a_gateway_that_goes_ends_it(anna, url, tmp_path, digits):
    assert "no gateway is live" in anna("apply", "-f", digits.path, "--wait")
    with StoreGateway(url, tmp_path, "one"):
        slow = {"model": "slow", "versions": {"1": {"source": tmp_path.as_uri()}}}
        slow["instances"] = [{"runtime": "loopback", "device": "cpu", "options": {"load": "fail"}}]
        path = tmp_path / "slow.json"
        path.write_text(json.dumps(slow))
        assert "declared to fail at load" in anna("apply", "-f", path, "--wait", status=1)
    assert "no gateway is live" in anna("set", "digits", "retry=never", "--wait")
