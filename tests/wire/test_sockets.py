from __future__ import annotations

import os
import socket

import pytest

from wire.sockets import READ_BYTES, receive


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_descriptors_come_no_later_than_the_bytes_they_were_sent_with(pair, tmp_path):
    left, right = pair
    left.sendall(b"plain")
    with (tmp_path / "a").open("wb") as file:
        socket.send_fds(left, [b"with"], [file.fileno(), file.fileno()])
        socket.send_fds(left, [b"and more"], [file.fileno()])
    data, descriptors = receive(right)
    assert data == b"plainwith"
    assert len(descriptors) == 2
    for fd in descriptors:
        assert not os.get_inheritable(fd)
        os.close(fd)
    data, descriptors = receive(right)
    assert data == b"and more"
    assert len(descriptors) == 1
    os.close(descriptors[0])


def test_a_closed_peer_is_no_data(pair):
    left, right = pair
    left.close()
    assert receive(right) == (b"", [])


def test_nothing_there_blocks_nobody(pair):
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive(pair[1])


def test_more_descriptors_than_allowed_break_the_connection_and_are_closed(pair, tmp_path):
    left, right = pair
    with (tmp_path / "a").open("wb") as file:
        before = set(os.listdir("/proc/self/fd"))
        socket.send_fds(left, [b"x"], [file.fileno()] * 40)
        with pytest.raises(OSError, match="more descriptors than the protocol allows"):
            receive(right)
        assert set(os.listdir("/proc/self/fd")) == before


def test_one_read_is_bounded(pair):
    left, right = pair
    left.setblocking(False)
    sent = left.send(bytes(4 * READ_BYTES))
    assert len(receive(right)[0]) <= min(sent, READ_BYTES)
