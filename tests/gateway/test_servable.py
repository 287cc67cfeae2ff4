"""What a model takes: every refusal names the tensor, what was expected and what came."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call, Tensor
from gateway.config.validation import validate
from gateway.errors import InvalidRequest
from gateway.scheduling.layout import gather, scatter
from gateway.servable import InputsInvalid, Servable, TensorInvalid
from wire.frames import Signature, TensorSpec


class NoOrigin:
    def settle(self, replies):
        raise AssertionError("a servable settles nothing")


def call(*inputs, outputs=()):
    return Call(id=1, origin=NoOrigin(), model="m", inputs=inputs, arrived_ns=0, outputs=outputs)


def fp32(name, *shape, size=None):
    count = 1
    for dimension in shape:
        count *= dimension
    return Tensor(name, "FP32", shape, bytes(4 * count if size is None else size))


def texts(name, shape, *elements):
    return Tensor(name, "BYTES", shape, b"".join(struct.pack("<I", len(e)) + e for e in elements))


PAIR = Signature(
    (TensorSpec("a", "FP32", (-1, 4)), TensorSpec("b", "INT64", (-1, -1))),
    (TensorSpec("y", "FP32", (-1, 4)), TensorSpec("z", "FP32", (-1,))),
)
ONE = Signature((TensorSpec("x", "FP32", (-1, -1, 2)),), (TensorSpec("y", "FP32", (-1, -1, 2)),))
WORDS = Signature((TensorSpec("t", "BYTES", (-1, 2)),), (TensorSpec("u", "BYTES", (-1, 2)),))
SCALAR = Signature((TensorSpec("s", "FP32", ()),), (TensorSpec("y", "FP32", ()),))


def servable(signature=PAIR, *, batchable=True, follows=(), **document):
    document = validate(document, model="m", versions={"1"})
    return Servable(document, "1", 1, signature, None, batchable=batchable, follows=follows)


def b(*shape):
    return Tensor("b", "INT64", shape, bytes(8 * shape[0] * shape[1]))


def test_a_good_request_has_its_rows_and_bytes():
    plan = servable().plan(call(fp32("a", 3, 4), b(3, 5)))
    assert (plan.rows, plan.size_bytes, plan.batchable, plan.wanted) == (3, 48 + 120, True, ())
    assert plan.shape.inputs == (("a", "FP32", (4,)), ("b", "INT64", (5,)))


def test_inputs_may_come_in_any_order():
    first = servable().plan(call(fp32("a", 1, 4), b(1, 5)))
    turned = servable().plan(call(b(2, 5), fp32("a", 2, 4)))
    assert [each.position for each in turned.inputs] == [1, 0]
    assert first.key == turned.key


def test_shapes_that_may_share_a_batch_have_one_key():
    here = servable()
    keys = [here.plan(call(fp32("a", n, 4), b(n, k))).key for n, k in [(1, 5), (3, 5), (1, 6)]]
    assert keys[0] == keys[1] != keys[2]


def test_plans_are_kept():
    here = servable()
    assert here.plan(call(fp32("a", 1, 4), b(1, 5))) is here.plan(call(fp32("a", 1, 4), b(1, 5)))
    here.apply(validate({}, model="m", versions={"1"}), 2)
    assert here._plans == {}


def test_the_table_of_plans_is_bounded():
    here = servable()
    for k in range(5000):
        here.plan(call(fp32("a", 1, 4), b(1, k)))
    assert len(here._plans) <= 4096


GOOD_A, GOOD_B = fp32("a", 2, 4), b(2, 3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((GOOD_A,), "input 'b' is missing"),
        ((), "input 'a' is missing"),
        ((GOOD_A, GOOD_B, fp32("c", 1)), "input 'c' is unknown; the model takes a, b"),
        ((GOOD_A, GOOD_B, GOOD_A), "input 'a' is given twice"),
        ((GOOD_A._replace(datatype="FP64"), GOOD_B), "input 'a' must be FP32, not FP64"),
        (
            (GOOD_A._replace(datatype="FLOAT"), GOOD_B),
            "input 'a' must be FP32, not FLOAT, which is no datatype of the protocol",
        ),
        ((GOOD_A._replace(datatype=""), GOOD_B), "input 'a' must be FP32, not nothing"),
        ((fp32("a", 2, 5), GOOD_B), "input 'a' must have shape [-1, 4], not [2, 5]"),
        ((fp32("a", 8), GOOD_B), "input 'a' must have shape [-1, 4], not [8]"),
        ((fp32("a", 2, 4, 1), GOOD_B), "input 'a' must have shape [-1, 4], not [2, 4, 1]"),
        ((GOOD_A._replace(shape=(-1, 4)), GOOD_B), "input 'a' must have shape [-1, 4], not [-1, 4]"),
        ((GOOD_A, GOOD_B._replace(shape=(0, 2**62))), "input 'b' must have shape [-1, -1], not [0, 4611"),
        ((GOOD_A, b(3, 3)), "input 'b' has 3 rows, other inputs of the request have 2"),
        ((fp32("a", 2, 4, size=31), GOOD_B), "input 'a' has 31 bytes, FP32 [2, 4] takes 32"),
        ((fp32("a", 2, 4, size=0), GOOD_B), "input 'a' has 0 bytes, FP32 [2, 4] takes 32"),
        ((fp32("a", 65, 4), b(65, 1)), "a batch of 65 rows is over max_batch_size 64"),
        ((fp32("a", 0, 4), b(0, 1)), "a request needs at least one row"),
    ],
)
def test_every_refusal_names_the_tensor_what_was_expected_and_what_came(inputs, message):
    with pytest.raises(InvalidRequest) as caught:
        servable().plan(call(*inputs))
    assert str(caught.value).startswith(f"model m: {message}")


def test_a_refused_size_is_refused_from_the_kept_plan_too():
    here = servable()
    here.plan(call(GOOD_A, GOOD_B))
    with pytest.raises(TensorInvalid, match="has 33 bytes"):
        here.plan(call(fp32("a", 2, 4, size=33), GOOD_B))


def test_an_unknown_output_names_those_there_are():
    with pytest.raises(InputsInvalid, match="model m: unknown output 'q'; it has y, z"):
        servable().plan(call(GOOD_A, GOOD_B, outputs=("y", "q")))
    assert servable().plan(call(GOOD_A, GOOD_B, outputs=("z",))).wanted == ("z",)


def test_an_unbatchable_model_takes_a_request_as_one_row_of_any_shape():
    plan = servable(batchable=False).plan(call(fp32("a", 500, 4), b(3, 0)))
    assert (plan.rows, plan.batchable) == (1, False)
    assert plan.shape.inputs == (("a", "FP32", (500, 4)), ("b", "INT64", (3, 0)))


def test_scalars():
    assert servable(SCALAR, batchable=False).plan(call(fp32("s"))).rows == 1
    with pytest.raises(TensorInvalid, match=r"must have shape \[\], not \[1\]"):
        servable(SCALAR, batchable=False).plan(call(fp32("s", 1)))


@pytest.mark.parametrize(
    ("tensor", "is_good"),
    [
        (texts("t", (1, 2), b"", b"abc"), True),
        (texts("t", (2, 2), b"a", b"b", b"c", b"d"), True),
        (texts("t", (1, 2), b"a"), False),
        (texts("t", (1, 2), b"a", b"b", b"c"), False),
        (Tensor("t", "BYTES", (1, 2), b""), False),
        (Tensor("t", "BYTES", (1, 2), b"\x00\x00\x00"), False),
        (Tensor("t", "BYTES", (1, 2), b"\xff\xff\xff\xff" + b"\x00" * 8), False),
        (Tensor("t", "BYTES", (1, 2), b"\x00\x00\x00\x00\x01\x00\x00\x00"), False),
    ],
)
def test_texts_are_exactly_as_many_as_the_shape_says(tensor, is_good):
    if is_good:
        assert servable(WORDS).plan(call(tensor)).rows == tensor.shape[0]
        return
    with pytest.raises(
        TensorInvalid, match=r"input 't' must hold 2 elements, each a 4-byte length"
    ) as caught:
        servable(WORDS).plan(call(tensor))
    assert f"{len(tensor.data)} bytes do not" in str(caught.value)


@given(st.binary(max_size=40), st.integers(1, 3))
def test_texts_that_pass_can_be_cut_into_elements(data, rows):
    try:
        servable(WORDS).plan(call(Tensor("t", "BYTES", (rows, 2), data)))
    except TensorInvalid:
        return
    at = found = 0
    while at < len(data):
        at += 4 + struct.unpack_from("<I", data, at)[0]
        found += 1
    assert (at, found) == (len(data), rows * 2)


# -- padding ---


def padded(value=0, follows=(("y", 1, "x"),), signature=ONE, **pad):
    pad = {"axis": 1, "buckets": [4, 8], "value": value, **pad}
    return servable(signature, follows=follows, batching={"pad": {"x": pad}})


@pytest.mark.parametrize(
    ("length", "bucket", "cuts"),
    [(1, 4, {"y": (1, 1)}), (3, 4, {"y": (1, 3)}), (4, 4, {}), (5, 8, {"y": (1, 5)}), (8, 8, {}), (9, 9, {})],
)
def test_an_axis_is_padded_to_the_next_bucket(length, bucket, cuts):
    plan = padded().plan(call(fp32("x", 2, length, 2)))
    assert plan.shape.inputs == (("x", "FP32", (bucket, 2)),)
    assert plan.size_bytes == 2 * bucket * 2 * 4
    assert plan.cuts == cuts


def test_lengths_of_one_bucket_share_a_batch():
    here = padded()
    assert here.plan(call(fp32("x", 1, 1, 2))).key == here.plan(call(fp32("x", 2, 4, 2))).key
    assert here.plan(call(fp32("x", 1, 4, 2))).key != here.plan(call(fp32("x", 1, 5, 2))).key


def test_padded_requests_come_back_at_their_own_length():
    here = padded(value=-1.5)
    calls = [
        call(Tensor("x", "FP32", (1, n, 2), struct.pack(f"<{2 * n}f", *range(2 * n)))) for n in (1, 3, 4)
    ]
    plans = [here.plan(each) for each in calls]
    (batch,) = gather(plans, calls)
    data = b"".join(batch.parts)
    assert (batch.shape, batch.size_bytes) == ((3, 4, 2), len(data))
    assert struct.unpack("<24f", data).count(-1.5) == 6 + 2
    answers = scatter([Tensor("y", "FP32", batch.shape, data)], plans)
    assert [(bytes(a[0].data), a[0].shape) for a in answers] == [
        (c.inputs[0].data, c.inputs[0].shape) for c in calls
    ]


def test_a_padded_request_of_the_wrong_size_is_refused_in_its_own_terms():
    with pytest.raises(TensorInvalid, match=r"has 20 bytes, FP32 \[1, 3, 2\] takes 24"):
        padded().plan(call(fp32("x", 1, 3, 2, size=20)))


def test_outputs_that_do_not_follow_are_not_cut():
    assert padded(follows=()).plan(call(fp32("x", 1, 3, 2))).cuts == {}
    assert padded(follows=(("y", 1, "other"),)).plan(call(fp32("x", 1, 3, 2))).cuts == {}


@pytest.mark.parametrize("shape", [(1, 0, 2), (1, 3, 0)])
def test_what_has_no_elements_is_not_padded(shape):
    signature = Signature((TensorSpec("x", "FP32", (-1, -1, -1)),), ONE.outputs)
    plan = padded(signature=signature).plan(call(fp32("x", *shape)))
    assert plan.shape.inputs == (("x", "FP32", shape[1:]),)


@pytest.mark.parametrize(
    ("datatype", "value", "element"),
    [
        ("INT64", 7.0, struct.pack("<q", 7)),
        ("UINT8", 255, b"\xff"),
        ("BOOL", 1, b"\x01"),
        ("FP16", 0.5, struct.pack("<e", 0.5)),
        ("FP64", 2, struct.pack("<d", 2)),
    ],
)
def test_the_value_is_written_in_the_inputs_datatype(datatype, value, element):
    signature = Signature((TensorSpec("x", datatype, (-1, -1)),), (TensorSpec("y", datatype, (-1, -1)),))
    given = Tensor("x", datatype, (1, 3), bytes(3 * len(element)))
    plan = padded(value, signature=signature).plan(call(given))
    (batch,) = gather([plan], [call(given)])
    assert b"".join(batch.parts) == given.data + element


def test_a_value_that_the_datatype_cannot_hold_is_told():
    signature = Signature((TensorSpec("x", "UINT8", (-1, -1)),), ONE.outputs)
    with pytest.raises(TensorInvalid, match="input 'x' cannot be padded to 4: 300 is no UINT8"):
        padded(300, signature=signature).plan(call(Tensor("x", "UINT8", (1, 3), bytes(3))))


def test_nothing_is_padded_where_nothing_is_batched():
    document = validate({"batching": {"pad": {"x": {"axis": 1, "buckets": [4]}}}}, model="m", versions={"1"})
    here = Servable(document, "1", 1, ONE, None, batchable=False)
    assert here.plan(call(fp32("x", 2, 3, 2))).shape.inputs == (("x", "FP32", (2, 3, 2)),)


# -- policy ---


def test_policy_is_in_the_units_of_the_data_path():
    here = servable(
        batching={"max_batch_size": 8, "max_queue_delay_us": 300, "max_queue_size": 9},
        limits={"run_timeout_ms": 7, "max_request_bytes": 99},
        deadline={"default_ms": 3},
        retry="never",
    )
    policy = here.policy
    assert (policy.max_rows, policy.max_delay_ns, policy.max_queue_size) == (8, 300_000, 9)
    assert (policy.run_timeout_ns, policy.max_request_bytes, policy.default_deadline_ns) == (
        7_000_000,
        99,
        3_000_000,
    )
    assert policy.retry is False
    assert here.queues.max_size == 9


def test_an_unbatchable_model_neither_batches_nor_waits():
    here = servable(batchable=False, batching={"max_batch_size": 8, "max_queue_delay_us": 300})
    assert (here.max_rows, here.max_delay_ns) == (1, 0)


def test_a_new_document_holds_at_once():
    here = servable()
    here.apply(
        validate({"batching": {"max_batch_size": 1, "max_queue_size": 3}}, model="m", versions={"1"}), 9
    )
    assert (here.revision, here.max_rows, here.queues.max_size) == (9, 1, 3)
    with pytest.raises(InputsInvalid, match="a batch of 2 rows is over max_batch_size 1"):
        here.plan(call(GOOD_A, GOOD_B))
