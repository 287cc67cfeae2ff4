from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.telemetry.gpus import Gpu, Gpus


class FakeNvml:
    """`pynvml` with so many GPUs; names in `unsupported` are refused, and all is while `broken`."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, count=1, *, unsupported=()):
        self.count = count
        self.unsupported = unsupported
        self.broken = False
        self.begun = 0

    def _answer(self, name, value):
        if name in self.unsupported:
            raise self.NVMLError_NotSupported("Not Supported")
        return value

    def nvmlInit(self):
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")
        self.begun += 1

    def nvmlDeviceGetCount(self):
        if self.broken:
            raise self.NVMLError("GPU is lost")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}".encode() if handle else f"GPU-{handle}"

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._answer("utilization", SimpleNamespace(gpu=40 + handle, memory=1))

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._answer("memory", SimpleNamespace(total=80 << 30, used=handle << 30, free=0))

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._answer("power", 123_456)

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        return self._answer("limit", 700_000)


def test_every_gpu_is_sampled():
    assert Gpus(FakeNvml(2)).sample() == [
        Gpu(0, "GPU-0", 0.4, 0, 80 << 30, 123.456, 700.0),
        Gpu(1, "GPU-1", 0.41, 1 << 30, 80 << 30, 123.456, 700.0),
    ]


@pytest.mark.parametrize(
    ("unsupported", "gpu"),
    [
        ({"utilization"}, Gpu(0, "GPU-0", None, 0, 80 << 30, 123.456, 700.0)),
        ({"memory", "power", "limit"}, Gpu(0, "GPU-0", 0.4)),
    ],
)
def test_what_a_gpu_does_not_tell_is_left_out(unsupported, gpu):
    assert Gpus(FakeNvml(unsupported=unsupported)).sample() == [gpu]


def test_driver_that_comes_and_goes_is_found_again():
    nvml = FakeNvml()
    nvml.broken = True
    gpus = Gpus(nvml)
    assert gpus.sample() == ()
    nvml.broken = False
    assert len(gpus.sample()) == len(gpus.sample()) == 1
    assert nvml.begun == 1
    nvml.broken = True
    assert gpus.sample() == ()
    nvml.broken = False
    assert len(gpus.sample()) == 1
    assert nvml.begun == 2


def test_without_the_module_there_is_nothing_to_sample():
    def load(name):
        raise ImportError(name)

    assert Gpus.find(load) is None
    assert Gpus.find(lambda name: FakeNvml(3)).sample()[2].uuid == "GPU-2"


def test_the_fake_has_the_names_of_the_real_module():
    real = pytest.importorskip("pynvml")
    for name in dir(FakeNvml):
        if name.startswith(("nvml", "NVML")):
            assert callable(getattr(real, name))
    assert issubclass(real.NVMLError_NotSupported, real.NVMLError)
