"""`docs/operating.md` works as it is written, with the output that it shows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest
from walkthrough import Shell, agrees, steps_of

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
PORTS = ("8001", "8000", "9001", "9000", "12379", "12380")  # of the page; here free ones take their place
HOME = "/home/ann"  # of whoever wrote the page
STEP_S = 60.0
DEMO_S = 120.0

pytestmark = pytest.mark.slow


@pytest.fixture
def ports():
    """{port of the page: a free one}"""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    free = {port: str(each.getsockname()[1]) for port, each in zip(PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return free


@pytest.fixture
def environment(tmp_path, ports):
    """As a newcomer has it, with .venv active, but with a home of its own, and other ports by default."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    return {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "XDG_STATE_HOME": str(tmp_path / ".local/state"),
        "CROSSGATE_SERVE_GRPC_PORT": ports["8001"],
        "CROSSGATE_SERVE_HTTP_PORT": ports["8000"],
        "CROSSGATE_ADDRESS": f"127.0.0.1:{ports['8001']}",
        "PYTHONUNBUFFERED": "1",  # what is printed comes in its order, as on a terminal
    }


def swapped(text, by):
    return re.sub(rf"\b({'|'.join(by)})\b", lambda found: by[found[0]], text)


def test_every_block_prints_what_the_page_shows(tmp_path, ports, environment):
    if shutil.which("etcd") is None:
        assert os.environ.get("CI") != "true", "etcd is missing (Debian: etcd-server)"
        pytest.skip("etcd is missing (Debian: etcd-server)")
    steps = steps_of(PAGE.read_text())
    assert len(steps) > 30
    back = {free: port for port, free in ports.items()}

    def as_on_the_page(printed):
        return swapped(printed.replace(str(tmp_path), HOME), back)

    with Shell(tmp_path, environment) as shell:
        for step in steps:
            printed, status = shell.run(
                swapped(step.command, ports),
                DEMO_S if "crossgate demo" in step.command else STEP_S,
                lambda text, step=step: agrees(step.shown, as_on_the_page(text)),
            )
            printed = as_on_the_page(printed)
            where = f"line {step.line} of {PAGE.name}:\n{step.command}"
            assert agrees(step.shown, printed), f"{where}\nshown:\n{step.shown}\nprinted:\n{printed}"
            assert step.may_fail or status == 0, f"{where}\nhas the exit status {status}"
