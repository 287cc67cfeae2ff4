"""Fetching, loading and unloading one version: what fails, whose fault it was, and when it is tried again."""

from __future__ import annotations

import asyncio

import pytest
from rig import LOOPBACK, FakeLink, FakePool, ManualClock, slot

from gateway.config.validation import validate
from gateway.lifecycle.desired import DesiredVersion
from gateway.lifecycle.loader import LinkGone, Loader, LoadFailed
from gateway.lifecycle.loading import spec_key
from gateway.lifecycle.placement import Placed
from gateway.lifecycle.record import InstanceRecord, VersionRecord
from gateway.scheduling.decision import NEVER
from gateway.workerpool.link import RequestRefused, WorkerLost

SECOND_NS = 1_000_000_000
DOCUMENT = validate(LOOPBACK, model="a", versions={"1", "2"})


@pytest.fixture
async def loader():
    loader = Loader(ManualClock(), FakePool([slot()]))
    loader.links["cpu"] = FakeLink()
    return loader


def record(version="1", key=None, source=""):
    made = VersionRecord(
        "a", version, key or f"key-{version}", DesiredVersion(version, f"/m/{version}", "f", source)
    )
    made.instances["cpu"] = InstanceRecord(Placed("cpu", "loopback", 1, 1, {}))
    return made


def load(loader, of):
    return loader.load(DOCUMENT, of, of.instances["cpu"])


async def test_loads_of_one_slot_come_one_after_the_other(loader):
    link = loader.links["cpu"]
    gate = link.gates["a"] = asyncio.Event()
    first = asyncio.ensure_future(load(loader, record("1")))
    second = asyncio.ensure_future(load(loader, record("2")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert link.log == []
    del link.gates["a"]
    gate.set()
    await asyncio.gather(first, second)
    assert link.log == [("load", "a", "1"), ("load", "a", "2")]


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_refusal_is_tried_again_only_where_that_can_help(loader, retryable):
    loader.links["cpu"].failures["a"] = [RequestRefused("no such operator", retryable=retryable)]
    with pytest.raises(LoadFailed, match="no such operator") as failure:
        await load(loader, record())
    assert (failure.value.retry_ns != NEVER) == retryable
    assert not failure.value.lost


async def test_failures_in_a_row_are_tried_again_ever_later_until_one_goes_well(loader):
    it = record()
    waits = []
    for _ in range(8):
        loader.links["cpu"].failures["a"] = [RequestRefused("busy", retryable=True)]
        with pytest.raises(LoadFailed) as failure:
            await load(loader, it)
        waits.append((failure.value.retry_ns - loader._clock.now_ns()) / SECOND_NS)
    assert waits[0] < 2
    assert waits[-1] > 30
    assert max(waits) <= 75
    await load(loader, it)
    loader.links["cpu"].failures["a"] = [RequestRefused("busy", retryable=True)]
    with pytest.raises(LoadFailed) as failure:
        await load(loader, it)
    assert failure.value.failures == 1


async def test_a_load_that_ends_its_worker_is_blamed_and_one_that_had_not_begun_is_not(loader):
    link = loader.links["cpu"]
    link.failures["a"] = [WorkerLost("killed by signal 9", begun=True)]
    with pytest.raises(LoadFailed, match="its worker was lost while loading") as failure:
        await load(loader, record())
    assert (failure.value.lost, failure.value.failures) == (True, 1)
    assert "cpu" not in loader.links
    loader.links["cpu"] = link
    link.failures["a"] = [WorkerLost("killed by signal 9", begun=False)]
    with pytest.raises(LinkGone):
        await load(loader, record("2"))


async def test_without_its_worker_nothing_is_loaded_and_nobody_blamed(loader):
    del loader.links["cpu"]
    with pytest.raises(LinkGone):
        await load(loader, record())


async def test_a_load_that_hangs_ends_its_worker(loader):
    loader.links["cpu"].failures["a"] = [TimeoutError()]
    with pytest.raises(LoadFailed, match="took too long"):
        await load(loader, record())
    assert "hangs" in loader._pool.workers["cpu"].killed[0]


async def test_an_unload_that_fails_is_no_failure(loader):
    loader.links["cpu"].lose("killed")
    await loader.unload(record(), record().instances["cpu"])
    del loader.links["cpu"]
    await loader.unload(record(), record().instances["cpu"])


async def test_what_was_fetched_is_returned_and_what_was_not_is_tried_again(loader, tmp_path):
    file = tmp_path / "m.onnx"
    with pytest.raises(LoadFailed, match="No such file") as failure:
        await loader.fetch(record(source=file.as_uri()))
    assert failure.value.retry_ns != NEVER
    file.write_bytes(b"four")
    fetched = await loader.fetch(record(source=file.as_uri()))
    assert (fetched.path, fetched.size_bytes) == (str(file), 4)


async def test_a_source_that_never_can_be_fetched_is_not_tried_again(loader):
    with pytest.raises(LoadFailed, match="s3://") as failure:
        await loader.fetch(record(source="s3://bucket/m"))
    assert failure.value.retry_ns == NEVER


def test_the_key_of_a_load_tells_models_versions_and_sources_apart():
    one = DesiredVersion("1", "", "", "file:///m", "sha256:a")
    other = validate(LOOPBACK, model="b", versions={"1"})
    keys = {
        spec_key(DOCUMENT, one),
        spec_key(other, one),
        spec_key(DOCUMENT, DesiredVersion("2", "", "", "file:///m", "sha256:a")),
        spec_key(DOCUMENT, DesiredVersion("1", "", "", "file:///n", "sha256:a")),
        spec_key(DOCUMENT, DesiredVersion("1", "", "", "file:///m", "sha256:b")),
    }
    assert len(keys) == 5


def test_the_key_of_a_load_does_not_change_with_policy_nor_once_its_files_are_here():
    one = DesiredVersion("1", "", "", "file:///m", "sha256:a")
    policy = {"deadline": {"default_ms": 5}, "retry": "never", "batching": {"max_batch_size": 8}}
    changed = validate({**LOOPBACK, **policy}, model="a", versions={"1"})
    assert spec_key(changed, one) == spec_key(DOCUMENT, one)
    fetched = DesiredVersion("1", "/cache/m", "f", "file:///m", "sha256:a")
    assert spec_key(DOCUMENT, fetched) == spec_key(DOCUMENT, one)
