"""What is measured beside requests: the loop's lag, GPUs, certificates; and metrics that are pushed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.telemetry import series, triton
from gateway.telemetry.certificate_expiry import CertificateExpiry
from gateway.telemetry.loop_lag import LoopLag
from gateway.telemetry.sampled import Sampled
from gateway.telemetry.series import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.clock import Clock
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.gpus import Gpu, Gpus
    from gateway.telemetry.metric_push import MetricPush
    from gateway.telemetry.series import Series

_GPU_PERIOD_S: Final = 5.0
_CERTIFICATE_PERIOD_S: Final = 30.0


class Instruments:
    """Registers its series with `accounts`. `run` measures until cancelled; then `close`. `certificates` is
    {use: PEM file}; a use without a file has no series, nor has a machine without GPUs or without `gpus`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        accounts: Accounts,
        *,
        certificates: Mapping[str, Path],
        gpus: Gpus | None,
        push: MetricPush | None = None,
        triton_names: bool = False,
    ) -> None:
        self._lag = LoopLag(loop, clock, accounts.loop_lag_seconds)
        self._push = push
        self._gpus = Sampled("gpus", gpus.sample, _GPU_PERIOD_S) if gpus is not None else None
        self._certificates = (
            Sampled("certificates", CertificateExpiry(certificates).sample, _CERTIFICATE_PERIOD_S)
            if certificates
            else None
        )
        if push is not None:
            accounts.read_at_scrape(series.METRIC_PUSHES, push.samples)
        if self._certificates is not None:
            known = self._certificates
            accounts.read_at_scrape(
                series.CERTIFICATE_EXPIRY, lambda: [Sample((each.use,), each.at_s) for each in known.latest]
            )
        if self._gpus is not None:
            _read_gpus(accounts, self._gpus, triton_names=triton_names)

    async def run(self) -> None:
        self._lag.start()
        async with asyncio.TaskGroup() as tasks:
            for sampled in (self._gpus, self._certificates):
                if sampled is not None:
                    tasks.create_task(sampled.run())
            if self._push is not None:
                tasks.create_task(self._push.run(), name="metric push")

    async def close(self) -> None:
        """Push what has been counted since, within seconds. Call it once, after `run` has ended."""
        self._lag.close()
        if self._push is not None:
            await self._push.finish()


def _read_gpus(accounts: Accounts, sampled: Sampled[Gpu], *, triton_names: bool) -> None:
    def read(
        one: Series,
        value: Callable[[Gpu], float | None],
        label: Callable[[Gpu], str] = lambda gpu: str(gpu.index),
    ) -> None:
        accounts.read_at_scrape(
            one,
            lambda: [
                Sample((label(gpu),), found) for gpu in sampled.latest if (found := value(gpu)) is not None
            ],
        )

    read(series.GPU_UTILIZATION, lambda gpu: gpu.utilization)
    read(series.GPU_MEMORY_USED, lambda gpu: gpu.memory_used_bytes)
    read(series.GPU_MEMORY, lambda gpu: gpu.memory_bytes)
    if triton_names:
        read(triton.GPU_UTILIZATION, lambda gpu: gpu.utilization, lambda gpu: gpu.uuid)
        read(triton.GPU_MEMORY_USED, lambda gpu: gpu.memory_used_bytes, lambda gpu: gpu.uuid)
        read(triton.GPU_MEMORY, lambda gpu: gpu.memory_bytes, lambda gpu: gpu.uuid)
        read(triton.GPU_POWER, lambda gpu: gpu.power_w, lambda gpu: gpu.uuid)
        read(triton.GPU_POWER_LIMIT, lambda gpu: gpu.power_limit_w, lambda gpu: gpu.uuid)
