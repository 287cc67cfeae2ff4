"""Whole directories into a store and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gateway.config.change import DocumentChange
from gateway.config.kinds import model_name
from gateway.config.store.local import LocalStore
from gateway.config.store.store import Put, StoreAway
from gateway.config.transaction import Author

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import Commands

BERT = Author("bert")


pytestmark = pytest.mark.slow


@pytest.fixture
def crossgate(tmp_path):
    return Commands(tmp_path)


@pytest.fixture
def checkout(crossgate):
    """A directory with two models, an access document and the gateway's."""
    crossgate.write("in/models/a.yaml", "model: a\nlabels: {x: '1'}\n")
    crossgate.write("in/models/b.json", '{"model": "b"}')
    crossgate.write("in/access/readers.yaml", "access: readers\nanonymous: true\n")
    crossgate.write("in/gateway.yaml", "log_level: info\n")
    return crossgate.folder / "in"


def names(crossgate):
    return crossgate("get", "-o", "names").split()


def test_sync_makes_the_store_what_the_directory_says(crossgate, checkout):
    assert "4 documents written, revision" in crossgate("sync", checkout, "-m", "commit 1a2b")
    assert names(crossgate) == ["a", "b", "policies/gateway", "access/readers"]
    assert crossgate("sync", checkout) == "unchanged: the store has it all\n"
    (checkout / "models" / "a.yaml").write_text("model: a\n")
    said = crossgate("sync", checkout)
    assert "1 document written" in said
    assert "note" not in said
    assert json.loads(crossgate("get", "a", "-o", "json")) == {"model": "a"}
    assert "commit 1a2b" in crossgate("history", "b")


def test_sync_deletes_only_with_prune_and_only_kinds_that_the_directory_has(crossgate, checkout):
    crossgate("sync", checkout)
    (checkout / "models" / "b.json").unlink()
    (checkout / "access" / "readers.yaml").unlink()
    (checkout / "gateway.yaml").unlink()
    said = crossgate("sync", checkout)
    assert 'left as they are without --prune: "b"' in said
    assert len(names(crossgate)) == 4
    said = crossgate("sync", checkout, "--prune", "--dry-run")
    assert "b (deleted)" in said
    assert len(names(crossgate)) == 4
    assert "0 documents written, 1 deleted" in crossgate("sync", checkout, "--prune")
    assert names(crossgate) == ["a", "policies/gateway", "access/readers"]


def test_sync_of_an_empty_or_missing_directory_changes_nothing(crossgate, checkout):
    crossgate("sync", checkout)
    (crossgate.folder / "empty").mkdir()
    assert "there is no document" in crossgate("sync", crossgate.folder / "empty", "--prune", status=1)
    assert "is not a directory" in crossgate("sync", crossgate.folder / "missing", "--prune", status=2)
    assert len(names(crossgate)) == 4


def test_one_wrong_document_stops_a_sync_before_anything_is_written(crossgate, checkout):
    crossgate.write("in/models/c.yaml", "model: c\nretyr: never\n")
    said = crossgate("sync", checkout, status=1)
    assert "nothing was written" in said
    assert 'did you mean "retry"' in said
    assert names(crossgate) == []


def test_sync_does_not_overwrite_what_changes_while_it_runs(crossgate, checkout):
    crossgate("sync", checkout)
    (checkout / "models" / "a.yaml").write_text("model: a\nretry: never\n")

    async def change(ledger, store):
        await ledger.amend(model_name("a"), lambda data: data | {"required": True}, BERT, "set")

    with crossgate.interfering(change):
        assert "set by bert" in crossgate("sync", checkout, status=3)
    assert "note: a: replaces generation 2, revision" in crossgate("sync", checkout, "--dry-run")
    assert "set by bert" in crossgate("sync", checkout)
    assert json.loads(crossgate("get", "a", "-o", "json")) == {"model": "a", "retry": "never"}


def test_a_large_sync_takes_several_transactions_and_goes_on_where_it_was_stopped(crossgate, monkeypatch):
    for i in range(150):
        crossgate.write(f"in/m{i:03}.json", f'{{"model": "m{i:03}"}}')
    commit = LocalStore.commit
    commits = []

    async def failing(store, writes, expect=()):
        if len(commits) == 2:
            raise StoreAway("the disk is gone")
        commits.append(len(writes))
        return await commit(store, writes, expect)

    monkeypatch.setattr(LocalStore, "commit", failing)
    said = crossgate("sync", crossgate.folder / "in", status=1)
    assert "transaction 2 of 3: 60 documents written" in said
    assert "stopped: 120 of 150 documents are done; run it again to go on" in said
    assert "the disk is gone" in said
    monkeypatch.setattr(LocalStore, "commit", commit)
    assert "30 documents written" in crossgate("sync", crossgate.folder / "in")
    assert len(names(crossgate)) == 150
    assert "more than one transaction takes" in crossgate(
        "apply", "-f", crossgate.folder / "in", "--store", crossgate.folder / "other.db", status=1
    )


def test_what_was_written_past_the_ledger_makes_transactions_smaller(crossgate):
    async def past_the_ledger(ledger, store):
        await store.commit([Put(f"models/m{i:02}", b"{}") for i in range(60)])

    crossgate.at_store(past_the_ledger)
    for i in range(60):
        crossgate.write(f"in/m{i:02}.json", f'{{"model": "m{i:02}"}}')
    assert "transaction 2 of 2: 30 documents written" in crossgate("sync", crossgate.folder / "in")
    assert "g2" in crossgate("history", "m59")


def test_large_documents_share_transactions_by_their_size(crossgate):
    labels = {f"label-{i:05}": "1" for i in range(12_000)}
    for i in range(4):
        crossgate.write(f"in/m{i}.json", json.dumps({"model": f"m{i}", "labels": labels}))
    said = crossgate("apply", "-f", crossgate.folder / "in", status=1)
    assert "bytes in one commit" in said
    assert "do it in several" in said
    assert "transaction 2 of 2: 2 documents written" in crossgate("sync", crossgate.folder / "in")


def test_export_and_import_carry_documents_to_another_store(crossgate, checkout):
    crossgate("sync", checkout)
    crossgate("set", "a", "retry=never", "--for", "1m")
    out, other = crossgate.folder / "out", crossgate.folder / "other.db"
    said = crossgate("export", out)
    assert "exported 4 documents" in said
    assert 'overrides of "a" are not exported' in said
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.yaml")) == [
        "access/readers.yaml",
        "gateway.yaml",
        "models/a.yaml",
        "models/b.yaml",
    ]
    assert "4 documents written" in crossgate("import", out, "--store", other)
    exported = crossgate("export", "-", "--store", other)
    assert exported == crossgate("export", "-").replace('note: overrides of "a" are not exported\n', "")
    third = crossgate.folder / "third.db"
    crossgate("import", "-", "--store", third, input=exported)
    assert crossgate("export", "-", "--store", third) == exported
    assert crossgate("sync", out) == "unchanged: the store has it all\n"


def test_export_does_not_mix_with_other_files(crossgate, checkout):
    crossgate("sync", checkout)
    assert "is not empty" in crossgate("export", checkout, status=1)
    crossgate("export", checkout, "--overwrite")
    assert "is no directory" in crossgate("export", checkout / "gateway.yaml", status=2)


def test_import_replaces_what_is_different_only_on_request(crossgate, checkout):
    crossgate("sync", checkout)
    crossgate("set", "a", "retry=never")
    said = crossgate("import", checkout, status=1)
    assert 'already there, and different: "a"' in said
    crossgate("import", checkout, "--overwrite")
    assert "retry" not in json.loads(crossgate("get", "a", "-o", "json"))


def test_an_unreadable_document_stops_an_export_and_can_be_pruned(crossgate, checkout):
    crossgate("sync", checkout)

    async def damage(ledger, store):
        await store.commit([Put("models/bad", b"{")])

    crossgate.at_store(damage)
    assert "models/bad is not JSON" in crossgate("export", "-", status=1)
    assert "1 deleted" in crossgate("sync", checkout, "--prune")


def test_a_deleted_document_comes_back_by_sync(crossgate, checkout):
    crossgate("sync", checkout)
    crossgate.at_store(lambda ledger, store: _delete(ledger))
    assert "1 document written" in crossgate("sync", checkout)
    assert "g3" in crossgate("history", "a")


async def _delete(ledger):
    name = model_name("a")
    await ledger.commit([DocumentChange(name, None, await ledger.read(name), "delete")], BERT)


def test_import_waits_on_request(crossgate):
    crossgate.write("in/a.yaml", "model: a\n")
    said = crossgate("import", crossgate.folder / "in", "--wait")
    assert "1 document written" in said
    assert "no gateway is live" in said
