"""Builds the images of the gateway and of the CPU worker, runs them side by side and asks them.

Takes about ten minutes, root, the network and Debian's `buildah` and `debootstrap`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from container import Container
from etcd_process import etcd_binary
from image_store import ROOT, ImageStore, require_tools

pytestmark = [pytest.mark.long, pytest.mark.slow]

TOOLS = ("gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cargo", "rustc")
START_S = 40.0
MIB = 1 << 20
# What an image adds to its base; a jump means that something came along that does not belong there.
LIMITS_MIB = {"gateway": 230, "worker-cpu": 330}


def until(condition, timeout_s=START_S):
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {timeout_s:g} s"
        time.sleep(0.2)
    return value


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """{target: image}; CROSSGATE_TEST_IMAGES names a folder that keeps them for the next run."""
    require_tools()
    kept = os.environ.get("CROSSGATE_TEST_IMAGES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("images")
    folder.mkdir(exist_ok=True)
    store = ImageStore(folder, folder / "build.log")
    try:
        if not (folder / "base").exists():
            store.make_base()
        yield {target: store.build(target) for target in LIMITS_MIB}
    finally:
        if not kept:
            store.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("etcd")
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [
        etcd_binary(), f"--data-dir={folder}", f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield clients.removeprefix("http://")
        process.terminate()


@pytest.fixture
def folders(tmp_path):
    """What are volumes elsewhere: sockets and state of the image's user, models of another."""
    for name in ("sockets", "state"):
        (tmp_path / name).mkdir(mode=0o700)
        os.chown(tmp_path / name, 10001, 10001)
    shutil.copytree(ROOT / "docker" / "models", tmp_path / "models")
    document = tmp_path / "models" / "digits.yaml"  # less the worker that is not built here
    lines = document.read_text().splitlines(keepends=True)
    document.write_text("".join(line for line in lines if "openvino" not in line))
    for each in (tmp_path / "models").rglob("*"):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return tmp_path


@pytest.fixture
def pair(images, etcd, folders):
    """A gateway without devices of its own and a pool, as compose.yaml has them."""
    store = {"CROSSGATE_STORE": f"etcd://{etcd}/{folders.name}"}
    volumes = {folders / "models": ("/models", False), folders / "sockets": ("/run/crossgate", True)}
    gateway = Container(
        images["gateway"],
        folders / "gateway.log",
        environment={
            **store,
            "CROSSGATE_SERVE_NAME": "gateway",
            "CROSSGATE_SERVE_NODE": "compose",
            "CROSSGATE_SERVE_HOST": "127.0.0.1",
            "CROSSGATE_SERVE_GRPC_PORT": "0",
            "CROSSGATE_SERVE_HTTP_PORT": "0",
            "CROSSGATE_ADDRESS": "unix:/tmp/gateway.sock",
        },
        volumes={**volumes, folders / "state": ("/var/lib/crossgate", True)},
    )
    pool = Container(
        images["worker-cpu"],
        folders / "pool.log",
        environment={
            **store,
            "CROSSGATE_WORKER_NODE": "compose",
            "CROSSGATE_WORKER_POOL_FOLDER": "/tmp/pool",
        },
        volumes=volumes,
    )
    with gateway, pool:
        until(gateway.healthy)
        until(pool.healthy)
        yield gateway, pool


@pytest.mark.parametrize("target", LIMITS_MIB)
def test_image_is_small_and_has_no_compiler(images, target):
    image = images[target]
    assert image.programs() & {*TOOLS, "pip"} <= {"pip"}  # of the base's Python, if at all
    added = subprocess.run(
        ["du", "-s", "-B1", str(image.root / "opt/crossgate")], capture_output=True, text=True, check=True
    )
    size_mib = int(added.stdout.split()[0]) // MIB
    print(f"{target}: root {image.size_bytes() // MIB} MiB, of it {size_mib} MiB ours")
    assert size_mib < LIMITS_MIB[target]


@pytest.mark.parametrize("target", LIMITS_MIB)
def test_image_says_what_it_is(images, target):
    image = images[target]
    assert image.user == "10001:10001"
    assert image.stop_signal == "SIGTERM"
    assert image.labels["org.opencontainers.image.title"].startswith("Crossgate")


def test_processes_are_nobody_in_particular_and_write_nowhere(pair):
    for container in pair:
        status = container.status()
        assert set(status["Uid"].split()) == {"10001"}
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for place in ("/", "/opt/crossgate", "/models", "/usr/local/lib/crossgate", "/var"):
            refused = container.run(["touch", f"{place}/x"])
            assert refused.returncode != 0
        assert container.run(["touch", "/tmp/x"]).returncode == 0


def test_model_is_published_and_a_request_answered_and_sigterm_drains(pair):
    gateway, pool = pair
    assert "frontend=native" in gateway.log_text()
    published = gateway.run(["crossgate", "apply", "-f", "/models/digits.yaml", "--wait", "--by=test"])
    assert published.returncode == 0, published.stderr + gateway.log_text()
    answer = gateway.run(["crossgate", "infer", "digits", "image=@/models/seven.json", "--json"])
    assert answer.returncode == 0, answer.stderr
    assert '"version": "1"' in answer.stdout
    status = gateway.run(["crossgate", "status"])
    assert "compose/cpu" in status.stdout
    assert gateway.healthy()
    assert pool.healthy()
    assert gateway.stop() == 0, gateway.log_text()
    assert "draining" in gateway.log_text()
    assert pool.stop() == 0, pool.log_text()


def test_container_that_is_left_ends_with_all_that_it_has_started(images, folders):
    settings = {"CROSSGATE_STORE": "/var/lib/crossgate/store.db", "CROSSGATE_SERVE_HTTP_PORT": "0"}
    volumes = {folders / "state": ("/var/lib/crossgate", True)}
    settings["CROSSGATE_SERVE_GRPC_PORT"] = "0"
    with Container(images["gateway"], folders / "log", environment=settings, volumes=volumes) as gateway:
        until(gateway.healthy)
        pid = gateway.pid
    assert not Path(f"/proc/{pid}").exists()


def test_pool_that_is_gone_leaves_the_gateway_alive_and_says_so(pair):
    gateway, pool = pair
    assert pool.stop() == 0
    assert not pool.healthy()
    assert gateway.healthy()


def test_health_check_of_a_gateway_that_has_gone_fails_and_names_the_socket(pair):
    gateway, pool = pair
    absent = pool.run(
        ["env", "-u", "CROSSGATE_WORKER_LISTEN", "CROSSGATE_SERVE_GRPC_UNIX=/tmp/absent.sock",
         "python3", "/usr/local/lib/crossgate/health.py"]
    )  # fmt: skip
    assert absent.returncode == 1
    assert "/tmp/absent.sock" in absent.stderr
    assert gateway.stop() == 0
