"""Concurrent callers through real processes, in batches of at least eight requests; every answer is compared
with ONNX Runtime alone in this process.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import numpy as np
import pytest
from onnx_models import ELEMENT_TYPES, MLP_INPUTS, Alone, elementwise, mlp, padded, two_inputs

from crossgate import Tensor

pytestmark = pytest.mark.slow

CALLERS = 12  # for each shape: all that wait together make one batch
MAX_ROWS = 5
WIDTHS = (1, 3, 8)
BATCHING = {"max_batch_size": CALLERS * MAX_ROWS, "max_queue_delay_us": 200_000}
DATATYPES = sorted(ELEMENT_TYPES)


class Sent(NamedTuple):
    """A request: what goes to the gateway, and the same for ONNX Runtime."""

    inputs: dict
    alone: dict
    outputs: tuple[str, ...]


@pytest.fixture(scope="module")
def files():
    """{model: its ONNX file}"""
    return {
        **{f"elementwise-{datatype.lower()}": elementwise(datatype) for datatype in DATATYPES},
        "mlp": mlp(seed=1),
        "mlp-openvino": mlp(seed=1),
        "several": two_inputs(),
        "padded": padded(),
    }


@pytest.fixture(scope="module")
def gateway(files, module_models, start_module_gateway):
    for model, file in files.items():
        document = {"batching": dict(BATCHING)}
        if model == "mlp-openvino":
            document["instances"] = [{"runtime": "openvino", "device": "openvino:CPU", "threads": 1}]
        if model == "padded":
            document["batching"]["pad"] = {"x": {"axis": 1, "buckets": [4, 16], "value": 0}}
        module_models.write_document(model, document)
        module_models.write_version(model, "1", file)
    return start_module_gateway(module_models, slots=("cpu,capacity=2", "openvino:CPU,capacity=2"))


@pytest.fixture(scope="module", autouse=True)
def _all_batchable(gateway, files):
    for model in files:
        assert gateway.ready_versions(model) == ["1"], gateway.index(model)
    assert not gateway.logged("not batchable")


async def send_together(gateway, model, requests):
    """Send all at once; return the answers and how many batches the gateway made of them."""
    before = gateway.metric("crossgate_batches_total", model=model)
    async with gateway.async_client() as client, asyncio.TaskGroup() as callers:
        tasks = [
            callers.create_task(client.infer(model, request.inputs, outputs=request.outputs))
            for request in requests
        ]
    batches = gateway.metric("crossgate_batches_total", model=model) - before
    return [task.result() for task in tasks], batches


def some_of(rng, names):
    """Any of the outputs, in any order; none named means all."""
    return tuple(rng.sample(names, rng.randint(0, len(names))))


def elements(datatype, shape, rng):
    """Random elements over the whole range of a datatype; BF16 as its bits."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    if datatype == "BYTES":
        texts = ["", "a", "日本", "\0x", "ab" * 40]
        array = np.empty(shape, object)
        array.ravel()[:] = [rng.choice(texts) for _ in range(array.size)]
        return array
    if datatype == "BOOL":
        return numbers.integers(0, 2, shape).astype(np.bool_)
    if datatype == "BF16":
        return (numbers.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if datatype.startswith("FP"):
        return numbers.standard_normal(shape).astype(f"<f{int(datatype[2:]) // 8}")
    dtype = np.dtype(datatype.lower())
    limits = np.iinfo(dtype)
    return numbers.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def elementwise_requests(datatype, rng):
    requests = []
    for width in WIDTHS:
        for _ in range(CALLERS):
            x = elements(datatype, (rng.randint(1, MAX_ROWS), width), rng)
            sent = Tensor("BF16", x.shape, x.tobytes()) if datatype == "BF16" else x
            requests.append(Sent({"x": sent}, {"x": x}, some_of(rng, ["same", "changed"])))
    rng.shuffle(requests)
    return requests


def comparable(array):
    """Texts as `str`, BF16 as FP32, as ONNX Runtime gives them here."""
    if array.dtype == object:
        return np.array([e.decode() for e in array.ravel().tolist()], object).reshape(array.shape)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def assert_in_batches_of_eight(requests, batches):
    assert 1 <= batches <= len(requests) / 8, f"{len(requests)} requests made {batches} batches"


@pytest.mark.parametrize("datatype", DATATYPES)
async def test_mixed_batches_of_every_datatype_answer_as_onnxruntime_alone(gateway, files, datatype):
    model = f"elementwise-{datatype.lower()}"
    requests = elementwise_requests(datatype, random.Random(datatype))
    answers, batches = await send_together(gateway, model, requests)
    assert_in_batches_of_eight(requests, batches)
    alone = Alone(files[model])
    for request, answer in zip(requests, answers, strict=True):
        names = request.outputs or ("same", "changed")
        assert sorted(answer) == sorted(names)
        for name, expected in alone.run(request.alone, names).items():
            assert answer.datatypes[name] == datatype
            np.testing.assert_array_equal(comparable(answer[name]), expected, strict=True)


@pytest.mark.parametrize(("model", "tolerance"), [("mlp", 1e-5), ("mlp-openvino", 1e-4)])
async def test_a_network_answers_in_batches_as_onnxruntime_alone(gateway, files, model, tolerance):
    rng = random.Random(model)
    requests = []
    for _ in range(3 * CALLERS):
        x = elements("FP32", (rng.randint(1, MAX_ROWS), MLP_INPUTS), rng)
        requests.append(Sent({"x": x}, {"x": x}, ()))
    answers, batches = await send_together(gateway, model, requests)
    assert_in_batches_of_eight(requests, batches)
    alone = Alone(files[model])
    for request, answer in zip(requests, answers, strict=True):
        expected = alone.run(request.alone, ["y"])["y"]
        np.testing.assert_allclose(answer["y"], expected, rtol=tolerance, atol=tolerance, strict=True)


async def test_requests_with_several_inputs_share_a_batch_only_with_their_shape(gateway, files):
    rng = random.Random(7)
    requests = []
    for width, length in ((2, 5), (4, 5), (2, 9)):
        for _ in range(CALLERS):
            rows = rng.randint(1, MAX_ROWS)
            inputs = {
                "c": elements("FP64", (rows, length), rng),
                "a": elements("INT64", (rows, width), rng) // 2,
                "b": elements("INT64", (rows, width), rng) // 2,
            }
            requests.append(Sent(inputs, inputs, some_of(rng, ["sum", "mean"])))
    rng.shuffle(requests)
    answers, batches = await send_together(gateway, "several", requests)
    assert_in_batches_of_eight(requests, batches)
    alone = Alone(files["several"])
    for request, answer in zip(requests, answers, strict=True):
        for name, expected in alone.run(request.alone, request.outputs or ("sum", "mean")).items():
            np.testing.assert_allclose(answer[name], expected, rtol=1e-12, strict=True)


async def test_padded_requests_share_batches_and_get_their_own_length_back(gateway, files):
    rng = random.Random(11)
    requests = []
    for _ in range(4 * CALLERS):
        x = elements("FP32", (rng.randint(1, MAX_ROWS), rng.randint(1, 16)), rng)
        requests.append(Sent({"x": x}, {"x": x}, some_of(rng, ["doubled", "total"])))
    answers, batches = await send_together(gateway, "padded", requests)
    assert_in_batches_of_eight(requests, batches)  # two buckets, sixteen lengths
    alone = Alone(files["padded"])
    for request, answer in zip(requests, answers, strict=True):
        for name, expected in alone.run(request.alone, request.outputs or ("doubled", "total")).items():
            np.testing.assert_allclose(answer[name], expected, rtol=1e-5, atol=1e-5, strict=True)


async def test_a_request_longer_than_the_largest_bucket_still_runs(gateway, files):
    x = np.arange(34, dtype=np.float32).reshape(2, 17)
    async with gateway.async_client() as client:
        answer = await client.infer("padded", {"x": x})
    np.testing.assert_array_equal(answer["doubled"], 2 * x)


async def test_statistics_count_every_row_of_the_batches(gateway):
    rows = [1 + i % MAX_ROWS for i in range(CALLERS)]
    with gateway.client() as client:
        (before,) = client.statistics("mlp")
        requests = [Sent({"x": np.zeros((n, MLP_INPUTS), np.float32)}, {}, ()) for n in rows]
        await send_together(gateway, "mlp", requests)
        (after,) = client.statistics("mlp")
    sizes = {b.batch_size: b.compute_infer.count for b in before.batch_stats}
    grown = {b.batch_size: b.compute_infer.count - sizes.get(b.batch_size, 0) for b in after.batch_stats}
    assert after.inference_count - before.inference_count == sum(rows)
    assert sum(size * count for size, count in grown.items()) == sum(rows)
    assert max(size for size, count in grown.items() if count) >= 8
    assert after.inference_stats.success.count - before.inference_stats.success.count == CALLERS
