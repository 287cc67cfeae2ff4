from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
import typer

from crossgate.cli.gateways_address import checked_address, gateway_here


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
    here("gw")
    assert gateway_here("gw").address == f"unix:{here.folder}/gw.admin.sock"


def test_a_name_that_no_gateway_here_has_is_refused_with_the_nearest(here, capsys):
    with pytest.raises(typer.Exit):
        gateway_here("one")
    assert 'no gateway of yours called "one" runs here; none does' in capsys.readouterr().err
    here("one")
    for name, words in (("onne", 'did you mean "one"?'), ("cpu", 'there is "one"')):
        with pytest.raises(typer.Exit):
            gateway_here(name)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "address", ["a:1", "unix:/s", "unix:s", "[::1]:8001", "dns:///a:1", "ipv4:1.2.3.4:5"]
)
def test_what_grpc_takes_for_an_address_passes(address):
    assert checked_address("--address", address) == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://a:8001", "no URL; did you mean a:8001?"),
        ("grpc://a:8001/", "no URL; did you mean a:8001?"),
        ("localhost", "the port is missing"),
    ],
)
def test_a_url_and_a_host_without_port_are_refused(capsys, address, words):
    with pytest.raises(typer.Exit) as failed:
        checked_address("--address", address)
    assert failed.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: --address {address}: expected HOST:PORT or unix:/PATH")
    assert words in said


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
