"""From a version's source to verified files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from registry.fetching import FetchFailed, fetch


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "digits 1"  # a URL needs it quoted
    (folder / "extra").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"a model")
    (folder / "extra" / "labels.txt").write_bytes(b"zero one")
    return folder


def refused(source, digest=None):
    with pytest.raises(FetchFailed) as failure:
        fetch(source, digest)
    return failure.value


def test_a_folder_gives_its_model_and_the_size_of_everything(folder):
    fetched = fetch(folder.as_uri())
    assert fetched.path == str(folder / "model.onnx")
    assert fetched.size_bytes == len(b"a model") + len(b"zero one")
    assert fetch(f"file://localhost{folder.as_uri().removeprefix('file://')}") == fetched


def test_a_file_gives_itself(folder):
    fetched = fetch((folder / "model.onnx").as_uri(), sha256(b"a model"))
    assert (fetched.path, fetched.fingerprint) == (str(folder / "model.onnx"), sha256(b"a model"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model.xml", "model.bin"], "model.xml"),
        (["net.onnx", "notes.txt"], "net.onnx"),
        (["model.onnx", "other.onnx"], "model.onnx"),
        (["a.onnx", "b.onnx"], ""),
        (["weights.pt"], ""),
        ([], ""),
    ],
)
def test_which_file_of_a_folder_is_the_model(tmp_path, names, found):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert fetch(tmp_path.as_uri()).path == str(tmp_path / found if found else tmp_path)


def test_a_model_below_is_not_the_folders(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "model.onnx").write_bytes(b"x")
    assert fetch(tmp_path.as_uri()).path == str(tmp_path)


def test_a_folders_digest_is_what_sha256sum_says(folder):
    lines = subprocess.run(
        "find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum",
        shell=True, cwd=folder, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert fetch(folder.as_uri(), sha256(lines)).fingerprint == sha256(lines)


def test_another_digest_is_refused_and_both_are_named(folder):
    failure = refused((folder / "model.onnx").as_uri(), sha256(b"another"))
    assert sha256(b"a model") in str(failure)
    assert sha256(b"another") in str(failure)


def test_the_fingerprint_changes_with_the_content(folder):
    before = fetch(folder.as_uri())
    assert fetch(folder.as_uri()) == before
    os.utime(folder / "extra" / "labels.txt", (1, 1))
    assert fetch(folder.as_uri()).fingerprint != before.fingerprint


def test_what_is_not_there_may_come_later(tmp_path):
    failure = refused((tmp_path / "missing").as_uri())
    assert failure.retryable
    assert str(tmp_path / "missing") in str(failure)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://models/digits.zip", "s3://"),
        ("/srv/models", "none://"),
        ("file://srv/models", "file:///path"),
        ("file://", "file:///path"),
        ("file:///srv/a%00b", "null byte"),
        ("file://[", "IPv6"),
        ("file:///srv/\ud800", "surrogates"),
        ("file:///dev/null", "neither a file nor a folder"),
    ],
)
def test_what_never_can_be_fetched_says_why(source, said):
    failure = refused(source)
    assert not failure.retryable
    assert said in str(failure)


def test_a_name_that_is_too_long_is_no_bug():
    assert "too long" in str(refused("file:///" + "a" * 5000))


def test_file_names_of_any_encoding_count(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")
    line = f"{hashlib.sha256(b'x').hexdigest()}  ".encode() + b"caf\xe9.txt\n"
    assert fetch(tmp_path.as_uri(), sha256(line)).size_bytes == 1
    assert fetch(tmp_path.as_uri()).fingerprint


def test_a_link_to_nowhere_is_no_file_of_the_folder(folder):
    before = fetch(folder.as_uri())
    (folder / "dangling").symlink_to(folder / "nowhere")
    assert fetch(folder.as_uri()).size_bytes == before.size_bytes


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(folder):
    Path(folder / "model.onnx").chmod(0)
    failure = refused(folder.as_uri(), sha256(b""))
    assert failure.retryable
    assert "model.onnx" in str(failure)
