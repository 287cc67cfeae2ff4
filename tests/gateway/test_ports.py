from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gateway.ports import Ports, http_ports
from gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("first", "grpc", "processes", "expected"),
    [
        (8000, 8001, 1, [8000]),
        (8000, 8001, 3, [8000, 8002, 8003]),  # gRPC's own port is left out
        (9000, 8001, 3, [9000, 9001, 9002]),
        (8001, 8001, 2, [8001, 8002]),  # what was asked for is refused when it is bound, not moved
        (0, 8001, 2, [0, 0]),
        (65535, 1, 1, [65535]),
    ],
)
def test_each_process_has_a_port_for_http(first, grpc, processes, expected):
    assert http_ports(first, grpc, processes) == expected


def test_ports_beyond_the_last_are_refused():
    with pytest.raises(OSError, match="3 ports for HTTP from 65534 on go beyond 65535"):
        http_ports(65534, 1, 3)


@pytest.fixture
def opened():
    """Open ports that are closed with the test."""
    every = []

    def open_ports(**settings):
        ports = Ports.open(GatewaySettings(Path(), **{"grpc_port": 0, "http_port": 0, **settings}))
        every.append(ports)
        return ports

    yield open_ports
    for ports in every:
        ports.remove()


def test_connections_wait_in_the_queue_of_sockets_that_are_passed_on(opened):
    ports = opened(processes=2)
    with socket.create_connection(ports.grpc[0].getsockname()) as client:
        again = Ports.of([os.dup(ports.grpc[0].fileno())], [])
        ports.remove()
        accepted, _ = again.grpc[0].accept()
        with accepted:
            accepted.sendall(b"hello")
            assert client.recv(5) == b"hello"
        again.remove()
    assert len({sock.getsockname() if sock.fileno() >= 0 else sock for sock in ports.http}) == 2


def test_a_port_that_is_taken_is_named_and_the_others_are_let_go(opened, tmp_path):
    taken = opened().grpc[0].getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: Address already in use"):
        opened(grpc_unix=str(tmp_path / "s"), http_port=taken)
    assert not (tmp_path / "s").exists()


def test_a_unix_socket_is_removed_with_the_ports(opened, tmp_path):
    path = tmp_path / "s"
    ports = opened(grpc_unix=str(path))
    assert ports.grpc[1].getsockname() == str(path)
    ports.remove()
    assert not path.exists()


def test_a_unix_socket_that_nobody_listens_on_is_taken_over(opened, tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    opened(grpc_unix=str(path))
    with pytest.raises(OSError, match="s: another process listens there"):
        opened(grpc_unix=str(path))


def test_a_file_is_not_taken_for_a_socket(opened, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="precious: it is there and is no socket"):
        opened(grpc_unix=str(path))
    assert path.read_text() == "data"
