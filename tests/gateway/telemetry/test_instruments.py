from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import trustme

from gateway.clock import MonotonicClock
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.collection import Collection
from gateway.telemetry.gpus import Gpu
from gateway.telemetry.instruments import Instruments

END = datetime(2031, 5, 1, tzinfo=UTC)


class FakeGpus:
    def sample(self):
        return [Gpu(0, "GPU-a", 0.5, 1, 2, 3.0, None)]


class FakePush:
    def __init__(self):
        self.finished = 0

    def samples(self):
        return []

    async def run(self):
        await asyncio.get_running_loop().create_future()

    async def finish(self):
        self.finished += 1


def scraped(accounts):
    """{(series name, labels): value} of what has samples"""
    return {
        (part.series.name, *point.labels): point.value
        for part in Collection(accounts).slices()
        for point in part.points
        if part.series.kind != "histogram"
    }


async def measured(accounts, wanted, **options):
    """What is scraped when `wanted` is"""
    instruments = Instruments(asyncio.get_running_loop(), MonotonicClock(), accounts, **options)
    task = asyncio.ensure_future(instruments.run())
    async with asyncio.timeout(10):
        while not wanted <= {name for name, *_ in scraped(accounts)}:
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await instruments.close()
    return scraped(accounts)


async def test_gpus_and_certificates_are_scraped_as_they_were_sampled(tmp_path):
    file = tmp_path / "grpc.pem"
    file.write_bytes(trustme.CA().issue_cert("g", not_after=END).cert_chain_pems[0].bytes())
    found = await measured(
        Accounts(),
        {"crossgate_gpu_utilization_ratio", "crossgate_certificate_expiry_timestamp_seconds"},
        certificates={"grpc": file},
        gpus=FakeGpus(),
        triton_names=True,
    )
    assert found["crossgate_certificate_expiry_timestamp_seconds", "grpc"] == END.timestamp()
    assert found["crossgate_gpu_utilization_ratio", "0"] == 0.5
    assert found["crossgate_gpu_memory_used_bytes", "0"] == 1
    assert found["crossgate_gpu_memory_bytes", "0"] == 2
    assert found["nv_gpu_utilization", "GPU-a"] == 0.5
    assert found["nv_gpu_power_usage", "GPU-a"] == 3.0
    assert ("nv_gpu_power_limit", "GPU-a") not in found  # it does not tell


async def test_what_is_not_there_has_no_series():
    found = await measured(Accounts(), set(), certificates={}, gpus=None)
    assert not [name for name, *_ in found if "gpu" in name or "certificate" in name or "push" in name]


async def test_metrics_are_pushed_once_more_at_the_end():
    push = FakePush()
    await measured(Accounts(), set(), certificates={}, gpus=None, push=push)
    assert push.finished == 1
