"""The directory source with a clock of the test's own: time passes when the test says so."""

from __future__ import annotations

import os
import time

import pytest

from gateway.lifecycle.directory import SETTLE_S, DirectorySource, DirectoryUnreadable


class Folder:
    """A models directory and its source. `now` starts well after everything that is written first."""

    def __init__(self, root):
        self.root = root
        self.ahead_s = 60.0
        self.source = DirectorySource(root, now=lambda: time.time() + self.ahead_s)

    def write(self, path, text="x"):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def scan(self):
        return self.source.scan()

    def versions(self, model="m"):
        found = self.scan().models.get(model)
        return None if found is None else sorted(found.versions)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(DirectoryUnreadable, match="absent is not a directory"):
        DirectorySource(tmp_path / "absent")


def test_an_empty_directory_has_no_models(folder):
    desired = folder.scan()
    assert (desired.models, desired.problems) == ({}, {})


def test_models_and_versions_are_found(folder):
    folder.write("a/1/model.onnx")
    folder.write("a/2/model.xml")
    folder.write("b/7/only.onnx")
    desired = folder.scan()
    assert sorted(desired.models) == ["a", "b"]
    paths = {v: os.path.relpath(d.path, folder.root) for v, d in desired.models["a"].versions.items()}
    assert paths == {"1": "a/1/model.onnx", "2": "a/2/model.xml"}
    assert desired.models["b"].versions["7"].path.endswith("b/7/only.onnx")


@pytest.mark.parametrize("name", ["01", "v1", "-1", "1.0", ".2", "²", "latest"])
def test_folders_that_are_no_versions_are_ignored(folder, name):
    folder.write("m/1/model.onnx")
    folder.write(f"m/{name}/model.onnx")
    assert folder.versions() == ["1"]


def test_hidden_folders_and_files_beside_models_are_ignored(folder):
    folder.write(".git/1/model.onnx")
    folder.write("README.md")
    assert folder.scan().models == {}


@pytest.mark.parametrize(
    ("age_s", "is_there"), [(0.0, False), (SETTLE_S - 0.5, False), (SETTLE_S + 0.2, True)]
)
def test_a_version_counts_when_nothing_changed_for_a_second(folder, age_s, is_there):
    folder.ahead_s = age_s
    folder.write("m/1/model.onnx")
    assert folder.versions() == (["1"] if is_there else [])
    assert folder.source.unsettled is not is_there


def test_a_copy_in_progress_is_never_loaded(folder):
    folder.ahead_s = 0
    folder.write("m/1/model.onnx", "first part")
    assert folder.versions() == []
    folder.write("m/1/model.onnx.data", "more")
    assert folder.versions() == []
    folder.ahead_s = SETTLE_S + 0.2
    assert folder.versions() == ["1"]
    assert not folder.source.unsettled


def test_a_version_that_is_written_over_serves_on_until_it_has_settled(folder):
    folder.write("m/1/model.onnx", "old")
    before = folder.scan().models["m"].versions["1"]
    folder.ahead_s = 0
    folder.write("m/1/model.onnx", "something new")
    during = folder.scan()
    assert during.models["m"].versions["1"] == before
    assert during.settling == {"m"}
    folder.ahead_s = 60
    after = folder.scan().models["m"].versions["1"]
    assert after.path == before.path
    assert after.fingerprint != before.fingerprint


def test_a_new_version_beside_a_settled_one_does_not_disturb_it(folder):
    folder.write("m/1/model.onnx")
    folder.scan()
    folder.ahead_s = 0
    folder.write("m/2/model.onnx")
    assert folder.versions() == ["1"]


def test_files_in_folders_of_a_version_count_too(folder):
    folder.write("m/1/model.onnx")
    before = folder.scan().models["m"].versions["1"].fingerprint
    folder.ahead_s = 0
    folder.write("m/1/weights/part", "x")
    folder.scan()
    assert folder.source.unsettled
    folder.ahead_s = 60
    assert folder.scan().models["m"].versions["1"].fingerprint != before


def test_an_empty_version_folder_is_no_version(folder):
    folder.write("m/1/model.onnx")
    (folder.root / "m" / "2").mkdir()
    assert folder.versions() == ["1"]
    assert not folder.source.unsettled


def test_a_loopback_version_needs_no_file(folder):
    folder.write("m/model.yaml", "instances: [{runtime: loopback, device: cpu}]")
    (folder.root / "m" / "3").mkdir()
    assert folder.versions() == ["3"]


def test_a_file_that_is_gone_when_it_is_looked_at_takes_nothing_down(folder):
    folder.write("m/1/model.onnx")
    (folder.root / "m" / "1" / ".#lock").symlink_to("nowhere")
    assert folder.versions() == ["1"]


# -- documents ---


def test_without_a_document_the_defaults_hold(folder):
    folder.write("m/1/model.onnx")
    assert folder.scan().models["m"].document.batching.max_batch_size == 64


def test_a_document_is_read(folder):
    folder.write("m/1/model.onnx")
    folder.write("m/model.yaml", "batching: {max_batch_size: 3}")
    assert folder.scan().models["m"].document.batching.max_batch_size == 3


@pytest.mark.parametrize(
    "broken",
    ["batching: {max_batch_size: 0}", "batching: [", "nonsense: 1", "labels: {prod: '9'}", "\xff\x00"],
)
def test_a_broken_document_leaves_the_last_good_one_in_force(folder, broken):
    folder.write("m/1/model.onnx")
    folder.write("m/model.yaml", "batching: {max_batch_size: 3}")
    before = folder.scan()
    folder.write("m/model.yaml", broken)
    during = folder.scan()
    assert during.models == before.models
    assert during.models["m"] is before.models["m"]
    assert during.problems.keys() == {"m"}
    assert during.problems["m"]
    folder.write("m/model.yaml", "batching: {max_batch_size: 5}")
    after = folder.scan()
    assert after.problems == {}
    assert after.models["m"].document.batching.max_batch_size == 5


def test_a_document_that_was_never_good_is_a_problem_and_no_model(folder):
    folder.write("m/1/model.onnx")
    folder.write("m/model.yaml", "batching: {max_batch_size: 0}")
    folder.write("n/1/model.onnx")
    desired = folder.scan()
    assert sorted(desired.models) == ["n"]
    assert "batching.max_batch_size" in desired.problems["m"]


def test_two_documents_are_a_problem(folder):
    folder.write("m/model.yaml", "")
    folder.write("m/model.json", "{}")
    assert "model.yaml and model.json" in folder.scan().problems["m"]


def test_a_folder_whose_name_is_no_models_name_is_a_problem(folder):
    folder.write("a b/1/model.onnx")
    assert list(folder.scan().problems) == ["a b"]


PBTXT = """
    name: "m" platform: "onnxruntime_onnx" max_batch_size: 4
    input [{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }]
    output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]
"""


def test_a_config_pbtxt_is_read_and_what_is_ignored_is_logged_once(folder, caplog):
    folder.write("m/1/model.onnx")
    folder.write("m/config.pbtxt", PBTXT + "optimization { priority: PRIORITY_MAX }")
    first = folder.scan()
    assert first.models["m"].document.batching.max_batch_size == 4
    folder.scan()
    assert caplog.text.count("config.pbtxt: not honoured") == 1


def test_a_config_pbtxt_that_cannot_be_honoured_is_refused(folder):
    folder.write("m/1/model.onnx")
    folder.write("m/config.pbtxt", PBTXT + "sequence_batching {}")
    desired = folder.scan()
    assert desired.models == {}
    assert "sequence_batching" in desired.problems["m"]


def test_our_own_document_wins_over_a_config_pbtxt(folder):
    folder.write("m/1/model.onnx")
    folder.write("m/config.pbtxt", "sequence_batching {}")
    folder.write("m/model.yaml", "batching: {max_batch_size: 7}")
    desired = folder.scan()
    assert desired.problems == {}
    assert desired.models["m"].document.batching.max_batch_size == 7


def test_a_file_name_given_by_triton_is_taken(folder):
    folder.write("m/1/net.onnx")
    folder.write("m/1/model.onnx")
    folder.write("m/config.pbtxt", PBTXT + 'default_model_filename: "net.onnx"')
    assert folder.scan().models["m"].versions["1"].path.endswith("/net.onnx")


# -- changes ---


def test_a_removed_model_and_a_removed_version_go(folder):
    folder.write("m/1/model.onnx")
    second = folder.write("m/2/model.onnx")
    folder.write("n/1/model.onnx")
    folder.scan()
    second.unlink()
    second.parent.rmdir()
    assert folder.versions() == ["1"]
    (folder.root / "n/1/model.onnx").unlink()
    (folder.root / "n/1").rmdir()
    (folder.root / "n").rmdir()
    assert sorted(folder.scan().models) == ["m"]


def test_the_revision_rises_with_changes_and_only_of_what_changed(folder):
    folder.write("a/1/model.onnx")
    folder.write("b/1/model.onnx")
    first = folder.scan()
    assert folder.scan() == first
    folder.write("b/model.yaml", "batching: {max_batch_size: 2}")
    second = folder.scan()
    assert second.revision == first.revision + 1
    assert (second.models["a"].revision, second.models["b"].revision) == (first.revision, second.revision)
    assert second.models["a"] is first.models["a"]


def test_an_unreadable_model_is_a_problem_and_serves_on(folder, monkeypatch):
    folder.write("m/1/model.onnx")
    before = folder.scan()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(DirectorySource, "_read_document", refuse)
    during = folder.scan()
    assert during.models == before.models
    assert during.problems["m"].startswith("cannot be read: ")


def test_a_directory_that_is_away_for_a_moment_unloads_nothing(folder, tmp_path):
    folder.write("m/1/model.onnx")
    before = folder.scan()
    away = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-away"))
    assert folder.scan() == before
    away.rename(tmp_path)
    assert folder.scan() == before


@pytest.mark.slow
async def test_changes_come_as_snapshots_once_they_have_settled(folder):
    folder.ahead_s = 0.9
    changes = folder.source.changes()
    first = await anext(changes)
    assert first.models == {}
    folder.write("m/1/model.onnx")
    found = await anext(changes)
    while not found.models.get("m") or not found.models["m"].versions:
        found = await anext(changes)
    assert sorted(found.models["m"].versions) == ["1"]
    await changes.aclose()


def test_document_of_a_directory_may_not_list_versions(folder):
    folder.write("m/1/model.onnx")
    folder.write("m/model.yaml", 'versions: {"1": {source: "s3://models/m-1.zip"}}')
    assert "numbered folders are the versions" in folder.scan().problems["m"]
