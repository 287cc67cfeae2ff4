from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from gateway.admin.address import claim, default_folder, default_path, prepare_folder, release, sockets_here
from gateway.workerpool.rendezvous import FolderUnsafe


@pytest.fixture
def folder():
    """A short path: those of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cg-") as path:
        yield Path(path)


@pytest.fixture
def listening():
    """Bind and listen; what is bound is closed after the test, as if its process had ended."""
    sockets = []

    def bind(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        sock.listen()
        sockets.append(sock)

    bind.sockets = sockets
    yield bind
    for sock in sockets:
        sock.close()


def reachable(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_claimed_socket_is_for_its_owner_alone(folder, listening):
    path = folder / "a.admin.sock"
    claim(path, listening)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reachable(path)
    assert [each.name for each in folder.iterdir()] == ["a.admin.sock"]


def test_the_socket_of_a_dead_process_is_replaced(folder, listening):
    path = folder / "a.admin.sock"
    claim(path, listening)
    listening.sockets[0].close()
    assert not reachable(path)
    claim(path, listening)
    assert reachable(path)


def test_the_socket_of_a_live_process_stays(folder, listening):
    path = folder / "a.admin.sock"
    inode = claim(path, listening)
    with pytest.raises(OSError, match="another gateway listens there"):
        claim(path, listening)
    assert path.stat().st_ino == inode


def test_a_successor_takes_the_place_at_once_and_keeps_it(folder, listening):
    path = folder / "a.admin.sock"
    first = claim(path, listening)
    second = claim(path, listening, replace=True)
    release(path, first)  # the predecessor ends
    assert path.stat().st_ino == second
    release(path, second)
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(folder, listening):
    path = folder / "a.admin.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="is no socket"):
        claim(path, listening)
    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_is_refused_in_plain_words(folder, listening):
    with pytest.raises(OSError, match="at most 107 bytes"):
        claim(folder / ("x" * 100 + ".admin.sock"), listening)


def test_the_default_folder_is_private_and_the_users_own(folder, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    path = default_path("gw")
    assert path == folder / "crossgate" / "gw.admin.sock"
    prepare_folder(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_folder() == Path(f"/tmp/crossgate-{os.geteuid()}/crossgate")


def test_a_folder_that_others_may_write_to_is_refused(folder):
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(FolderUnsafe):
        prepare_folder(shared / "a.admin.sock")


def test_only_sockets_that_somebody_listens_on_are_found(folder, listening):
    for name in ("b", "a", "dead"):
        claim(folder / f"{name}.admin.sock", listening)
    listening.sockets[2].close()
    (folder / "file.admin.sock").write_text("")
    claim(folder / "other.sock", listening)
    assert [path.name for path in sockets_here(folder)] == ["a.admin.sock", "b.admin.sock"]
    assert sockets_here(folder / "missing") == []
