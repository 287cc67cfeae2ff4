"""GPUs as NVML sees them, where there are any and its Python module is installed (`nvidia-ml-py`)."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)


class Gpu(msgspec.Struct, frozen=True):
    """One GPU now; None is what it does not tell. `index` is NVML's, by PCI address."""

    index: int
    uuid: str
    utilization: float | None = None  # from 0 to 1
    memory_used_bytes: int | None = None
    memory_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


class Gpus:
    """`nvml` is the module `pynvml`. All methods may block, and belong in one thread."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._begun = False

    @classmethod
    def find(cls, load: Callable[[str], Any] = importlib.import_module) -> Gpus | None:
        """None where the module is not installed."""
        try:
            return cls(load("pynvml"))
        except ImportError:
            return None

    def sample(self) -> Sequence[Gpu]:
        """All GPUs as they are now; none where there is no driver, and while it fails."""
        nvml = self._nvml
        try:
            if not self._begun:
                nvml.nvmlInit()
                self._begun = True
            return [self._gpu(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            level = logging.WARNING if self._begun else logging.DEBUG  # no driver is the ordinary case
            _log.log(level, "NVML does not answer: %s", error)
            self._begun = False  # a driver that was loaded again needs it
            return ()

    def _gpu(self, index: int) -> Gpu:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = nvml.nvmlDeviceGetUUID(handle)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        limit_mw = self._ask(nvml.nvmlDeviceGetPowerManagementLimit, handle)
        return Gpu(
            index,
            uuid.decode() if isinstance(uuid, bytes) else uuid,
            None if rates is None else rates.gpu / 100,
            None if memory is None else memory.used,
            None if memory is None else memory.total,
            None if power_mw is None else power_mw / 1000,
            None if limit_mw is None else limit_mw / 1000,
        )

    def _ask(self, question: Callable[[Any], Any], handle: Any) -> Any:
        """Its answer, None where this GPU, or a part of one, does not have it."""
        try:
            return question(handle)
        except self._nvml.NVMLError_NotSupported:
            return None
