from __future__ import annotations

import pytest

from gateway.config.device import Device, parse_device


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", Device("cpu")),
        ("cpu:0-3", Device("cpu", cpus=(0, 1, 2, 3))),
        ("cpu:0,2", Device("cpu", cpus=(0, 2))),
        ("cpu:4,0-1", Device("cpu", cpus=(0, 1, 4))),
        ("cpu@numa1", Device("cpu", numa=1)),
        ("cuda:0", Device("cuda", index=0)),
        ("openvino:CPU", Device("openvino", openvino="CPU")),
        ("openvino:GPU", Device("openvino", openvino="GPU")),
        ("openvino:GPU.1", Device("openvino", openvino="GPU.1")),
        ("openvino:NPU", Device("openvino", openvino="NPU")),
        ("openvino:AUTO", Device("openvino", openvino="AUTO")),
    ],
)
def test_device_is_read_as_written(text, device):
    assert parse_device(text) == device
    assert parse_device(str(device)) == device


@pytest.mark.parametrize(
    ("text", "written"), [("cpu:2,0-1", "cpu:0-2"), ("cpu:7,3,4", "cpu:3-4,7"), ("cpu:05", "cpu:5")]
)
def test_device_has_one_canonical_text(text, written):
    assert str(parse_device(text)) == written


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "expected cpu, cpu:0-3"),
        ("gpu", "expected cpu, cpu:0-3"),
        ("cpu:", "expected cpu, cpu:0-3"),
        ("cpu:0-", "expected cpu, cpu:0-3"),
        ("cpu\n", "expected cpu, cpu:0-3"),
        ("cpu:٣", "expected cpu, cpu:0-3"),
        ("cpu@numa", "cpu@numa1"),
        ("cuda", "cuda:0"),
        ("cuda:00", "cuda:0"),
        ("openvino:gpu", "openvino:GPU"),
        ("openvino:MULTI:CPU,GPU", "openvino:AUTO"),
        ("cpu:3-1", "counts up"),
        ("cpu:0-9999", "below 4096"),
        ("cpu:0-3,2", "names a CPU twice"),
    ],
)
def test_wrong_device_is_refused_with_what_is_valid(text, fragment):
    with pytest.raises(ValueError, match=r"expected|twice") as caught:
        parse_device(text)
    assert fragment in str(caught.value)
