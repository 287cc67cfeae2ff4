from __future__ import annotations

import pytest

from gateway.workerpool.slot import SlotInvalid, cpu_list, is_cpu, parse_slot


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("text", "device", "cpus", "capacity", "visible"),
    [
        ("cpu", "cpu", range(8), 8, ""),
        ("cpu:0-3", "cpu:0-3", range(4), 4, ""),
        ("cpu:0,2,5", "cpu:0,2,5", (0, 2, 5), 3, ""),
        ("cpu:1,capacity=9", "cpu:1", (1,), 9, ""),
        ("cpu,cpus=2-3,6,capacity=2", "cpu", (2, 3, 6), 2, ""),
        ("cuda:0", "cuda:0", range(8), 2, "0"),
        ("cuda:3,cpus=4-7,capacity=1", "cuda:3", range(4, 8), 1, "3"),
        ("openvino:CPU,cpus=4-7", "openvino:CPU", range(4, 8), 4, ""),
        ("openvino:GPU.1", "openvino:GPU.1", range(8), 2, ""),
    ],
)
def test_a_slot_is_read(text, device, cpus, capacity, visible):
    slot = parse_slot(text)
    assert (slot.name, str(slot.device), slot.cpus, slot.capacity) == (text, device, tuple(cpus), capacity)
    assert slot.cuda_visible_devices == visible
    assert slot.on_cpu is is_cpu(slot.device) is (device.startswith("cpu") or device == "openvino:CPU")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "slot 'gpu': expected cpu, cpu:0-3"),
        ("", "slot '': expected cpu"),
        ("cpu,threads=2", "unknown option 'threads'; there are cpus, capacity and memory"),
        ("cpu,capacity=0", "capacity must be a whole number from 1"),
        ("cpu,capacity=two", "capacity must be a whole number from 1"),
        ("cpu:8", "CPU 8 is not there; this process may use 0-7"),
        ("cuda:0,cpus=9", "CPU 9 is not there; this process may use 0-7"),
        ("cpu,cpus=x", "cpus must be a list such as 0-3,6"),
        ("cpu,cpus=", "cpus must be a list such as 0-3,6"),
        ("cpu,cpus=3-1", "an empty CPU list is not there"),
        ("cpu@numa77", "there is no NUMA node 77 here"),
    ],
)
def test_what_is_wrong_says_what_is_valid(text, message):
    with pytest.raises(SlotInvalid) as caught:
        parse_slot(text)
    assert message in str(caught.value)


def test_a_numa_node_has_its_cpus():
    assert parse_slot("cpu@numa0").cpus


def test_lists_of_cpus():
    assert cpu_list("0-3,6") == (0, 1, 2, 3, 6)
    assert cpu_list("2,1-2") == (1, 2)
    with pytest.raises(ValueError, match="invalid literal"):
        cpu_list("0-3,")
