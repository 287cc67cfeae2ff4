from __future__ import annotations

import pytest

from gateway.config.device import parse_device
from gateway.config.document import Instance, Where
from gateway.lifecycle.placement import Placed, PlacementFailed, matches, place
from gateway.workerpool.slot import Slot

ALL = ("onnxruntime", "openvino", "loopback")


def slot(device, capacity=4, name=None):
    return Slot(name or device, parse_device(device), tuple(range(capacity)), capacity)


def there(node, device, capacity=4, runtimes=ALL):
    """A slot of another node."""
    cpus, name = tuple(range(capacity)), f"{node}/{device}"
    return Slot(name, parse_device(device), cpus, capacity, node=node, runtimes=tuple(runtimes), fetches=True)


CPU, LEFT, RIGHT = slot("cpu"), slot("cpu:0-1", 2), slot("cpu:2-3", 2)
CUDA, OPENVINO = slot("cuda:0", 2), slot("openvino:CPU")


def placed(where, runtime="onnxruntime", count=1, width=4, options=None):
    return Placed(where, runtime, count, width, options or {})


@pytest.mark.parametrize(
    ("instances", "slots", "expected"),
    [
        # an instance's own words
        ([Instance("onnxruntime", "cpu")], [CPU], [placed("cpu")]),
        ([Instance("onnxruntime", "cpu", count=2)], [CPU], [placed("cpu", count=2, width=2)]),
        ([Instance("onnxruntime", "cpu", count=3)], [CPU], [placed("cpu", count=3, width=1)]),
        ([Instance("onnxruntime", "cpu", count=9)], [CPU], [placed("cpu", count=9, width=1)]),
        ([Instance("onnxruntime", "cpu", threads=3)], [CPU], [placed("cpu", width=3)]),
        ([Instance("onnxruntime", "cpu", threads=99)], [CPU], [placed("cpu", width=4)]),
        ([Instance("onnxruntime", "cuda:0", count=2)], [CPU, CUDA], [placed("cuda:0", count=2, width=1)]),
        ([Instance("onnxruntime", "cuda:0", threads=8)], [CUDA], [placed("cuda:0", width=1)]),
        ([Instance("openvino", "openvino:CPU")], [CPU, OPENVINO], [placed("openvino:CPU", "openvino")]),
        (
            [Instance("loopback", "cpu", options={"expand": 2})],
            [CPU],
            [placed("cpu", "loopback", options={"expand": 2})],
        ),
        # several slots
        (
            [Instance("onnxruntime", "cpu", count=2)],
            [LEFT, RIGHT],
            [placed("cpu:0-1", width=2), placed("cpu:2-3", width=2)],
        ),
        (
            [Instance("onnxruntime", "cpu", count=3)],
            [LEFT, RIGHT],
            [placed("cpu:0-1", count=2, width=1), placed("cpu:2-3", width=2)],
        ),
        ([Instance("onnxruntime", "cpu", count=1)], [LEFT, RIGHT], [placed("cpu:0-1", width=2)]),
        ([Instance("onnxruntime", "cpu:2-3")], [LEFT, RIGHT], [placed("cpu:2-3", width=2)]),
        (
            [Instance("onnxruntime", "cpu"), Instance("openvino", "openvino:CPU")],
            [CPU, OPENVINO],
            [placed("cpu"), placed("openvino:CPU", "openvino")],
        ),
    ],
)
def test_instances_are_placed(instances, slots, expected):
    assert list(place(instances, "/m/1/model.onnx", slots, ALL)) == expected


@pytest.mark.parametrize(
    ("path", "slots", "runtimes", "expected"),
    [
        ("model.onnx", [CPU, CUDA, OPENVINO], ALL, placed("cpu")),
        ("model.onnx", [CUDA, OPENVINO], ALL, placed("cuda:0", width=1)),
        ("model.onnx", [OPENVINO], ALL, placed("openvino:CPU", "openvino")),
        ("model.onnx", [CPU, OPENVINO], ("openvino",), placed("openvino:CPU", "openvino")),
        ("model.xml", [CPU, OPENVINO], ALL, placed("openvino:CPU", "openvino")),
    ],
)
def test_without_instances_the_file_decides(path, slots, runtimes, expected):
    assert place((), f"/m/1/{path}", slots, runtimes) == (expected,)


@pytest.mark.parametrize(
    ("instances", "path", "slots", "runtimes", "message"),
    [
        (
            [Instance("openvino", "cpu")],
            "m.onnx",
            [CPU],
            ("onnxruntime",),
            "runtime openvino is not installed here; there is onnxruntime",
        ),
        (
            [Instance("onnxruntime", "cuda:1")],
            "m.onnx",
            [CPU, CUDA],
            ALL,
            "no slot here is cuda:1; there are cpu, cuda:0",
        ),
        (
            [Instance("onnxruntime", "cpu:7")],
            "m.onnx",
            [LEFT],
            ALL,
            "no slot here is cpu:7; there are cpu:0-1",
        ),
        (
            [Instance("onnxruntime", "cpu"), Instance("loopback", "cpu")],
            "m.onnx",
            [CPU],
            ALL,
            "two instances want the slot cpu; give one of them a slot of its own",
        ),
        (
            (),
            "/m/1/model.onnx",
            [OPENVINO],
            ("onnxruntime",),
            "nothing here can run model.onnx: slots openvino:CPU; runtimes onnxruntime",
        ),
        (
            (),
            "/m/1/model.xml",
            [CPU],
            ALL,
            "nothing here can run model.xml: slots cpu; runtimes loopback, onnx",
        ),
        ((), "/m/1", [CPU], ALL, "/m/1 has no model.onnx or model.xml, and the document names no instances"),
    ],
)
def test_what_cannot_be_placed_names_what_is_there(instances, path, slots, runtimes, message):
    with pytest.raises(PlacementFailed) as caught:
        place(instances, path, slots, runtimes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ("cpu", "cpu", True),
        ("cpu", "cpu:0-1", True),
        ("cpu", "cpu@numa0", True),
        ("cpu", "openvino:CPU", False),
        ("cpu:0-1", "cpu:0,1", True),
        ("cpu:0-1", "cpu", False),
        ("cpu@numa0", "cpu@numa1", False),
        ("cuda:0", "cuda:1", False),
        ("openvino:GPU", "openvino:GPU", True),
    ],
)
def test_a_plain_cpu_is_any_cpu_slot_and_all_else_is_itself(wanted, there, expected):
    assert matches(parse_device(wanted), parse_device(there)) is expected


def test_instances_for_other_nodes_are_left_out():
    here = Instance("onnxruntime", "cpu", count=2, where=Where(node="edge-*"))
    there = Instance("onnxruntime", "cuda:0", where=Where(node="gpu-1"))
    assert place([here, there], "m.onnx", [CPU], ALL, "edge-7") == (placed("cpu", count=2, width=2),)


def test_model_without_an_instance_for_this_node_names_the_nodes_it_has():
    with pytest.raises(PlacementFailed, match=r"this node, edge-7; they are for gpu-1"):
        place([Instance("onnxruntime", "cpu", where=Where(node="gpu-1"))], "m.onnx", [CPU], ALL, "edge-7")


A_CPU, A_LEFT, A_RIGHT = there("a", "cpu"), there("a", "cpu:0-1", 2), there("a", "cpu:2-3", 2)
B_CPU, B_CUDA = there("b", "cpu", 8), there("b", "cuda:0", 2)
B_BARE = there("b", "cpu", 8, ("loopback",))


@pytest.mark.parametrize(
    ("instances", "slots", "expected"),
    [
        # everywhere, the count on each node
        ([Instance("loopback", "cpu")], [CPU, A_CPU], [("cpu", 1, 4), ("a/cpu", 1, 4)]),
        ([Instance("loopback", "cpu", count=2)], [CPU, B_CPU], [("cpu", 2, 2), ("b/cpu", 2, 4)]),
        ([Instance("loopback", "cpu")], [A_CPU, B_CPU], [("a/cpu", 1, 4), ("b/cpu", 1, 8)]),
        # spread over a node's own slots
        (
            [Instance("loopback", "cpu", count=3)],
            [CPU, A_LEFT, A_RIGHT],
            [("cpu", 3, 1), ("a/cpu:0-1", 2, 1), ("a/cpu:2-3", 1, 2)],
        ),
        # on the nodes that match
        ([Instance("loopback", "cpu", where=Where(node="a"))], [CPU, A_CPU, B_CPU], [("a/cpu", 1, 4)]),
        ([Instance("loopback", "cpu", where=Where(node="here"))], [CPU, A_CPU], [("cpu", 1, 4)]),
        (
            [Instance("loopback", "cpu", where=Where(node="[ab]"))],
            [CPU, A_CPU, B_CPU],
            [("a/cpu", 1, 4), ("b/cpu", 1, 8)],
        ),
        # on those that have the device, and the runtime
        ([Instance("onnxruntime", "cuda:0")], [CPU, A_CPU, B_CUDA], [("b/cuda:0", 1, 1)]),
        ([Instance("onnxruntime", "cpu")], [CPU, B_BARE], [("cpu", 1, 4)]),
        # each instance for itself
        (
            [Instance("onnxruntime", "cuda:0"), Instance("loopback", "cpu", where=Where(node="a"))],
            [CPU, A_CPU, B_CUDA],
            [("b/cuda:0", 1, 1), ("a/cpu", 1, 4)],
        ),
        # without instances each node decides
        ((), [CPU, B_CUDA], [("cpu", 1, 4), ("b/cuda:0", 1, 1)]),
        ((), [B_BARE, A_CPU], [("a/cpu", 1, 4)]),
    ],
)
def test_instances_are_placed_on_every_node_that_matches(instances, slots, expected):
    found = place(instances, "/m/1/model.onnx", slots, ALL, "here")
    assert [(each.slot, each.count, each.width) for each in found] == expected


def test_pool_of_this_machine_shares_an_instance_with_the_gateways_own_slots():
    found = place([Instance("loopback", "cpu", count=3)], "m.onnx", [CPU, A_CPU], ALL, "a")
    assert [(each.slot, each.count) for each in found] == [("cpu", 2), ("a/cpu", 1)]


def test_gateway_without_the_runtime_places_on_those_that_have_it():
    found = place((), "/m/1/model.onnx", [A_CPU], (), "here")
    assert [(each.slot, each.runtime) for each in found] == [("a/cpu", "onnxruntime")]


@pytest.mark.parametrize(
    ("instances", "slots", "message"),
    [
        ([Instance("loopback", "cuda:1")], [B_CUDA], "no slot on node b is cuda:1; there are cuda:0"),
        ([Instance("loopback", "cuda:1")], [CPU, B_CUDA], "no slot here is cuda:1; there are cpu"),
        (
            [Instance("openvino", "cpu")],
            [B_BARE],
            "runtime openvino is not installed on node b; there is loop",
        ),
        (
            [Instance("loopback", "cpu", where=Where(node="c"))],
            [CPU, A_CPU],
            "no instance is for the nodes here, a; they are for c",
        ),
        ([Instance("loopback", "cpu")], [], "no slot here is cpu; there are none"),
        ((), [B_BARE], "nothing on node b can run model.onnx: slots cpu; runtimes loopback"),
    ],
)
def test_what_no_node_can_run_names_what_is_there(instances, slots, message):
    with pytest.raises(PlacementFailed) as caught:
        place(instances, "/m/1/model.onnx", slots, ALL, "here")
    assert str(caught.value).startswith(message)
