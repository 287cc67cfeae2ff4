from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
import typer

from crossgate.cli.gateways_address import gateway_here


@pytest.fixture
def here(monkeypatch):
    """The folder of this user's admin sockets, and what listens there on request."""
    with tempfile.TemporaryDirectory(prefix="cg-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        (Path(folder) / "crossgate").mkdir()
        sockets = []

        def listen(name):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(f"{folder}/crossgate/{name}.admin.sock")
            sock.listen()
            sockets.append(sock)

        listen.folder = f"{folder}/crossgate"
        yield listen
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("gw.example.org:9000", "gw.example.org:9000"),
    ],
)
def test_addresses_are_taken_as_they_are(text, address):
    assert gateway_here(text).address == address


def test_a_name_is_that_of_a_gateway_here(here):
    assert gateway_here("gw").address == f"unix:{here.folder}/gw.admin.sock"


def test_the_only_gateway_needs_no_name(here):
    here("gw")
    assert gateway_here("").address == f"unix:{here.folder}/gw.admin.sock"


def test_of_several_one_must_be_named(here, capsys):
    here("b")
    here("a")
    with pytest.raises(typer.Exit):
        gateway_here("")
    assert "say which with --gateway: a, b" in capsys.readouterr().err


def test_without_any_it_is_said_how_to_start_one(here, capsys):
    with pytest.raises(typer.Exit):
        gateway_here("")
    assert "start one with `crossgate serve`" in capsys.readouterr().err
