from __future__ import annotations

import math
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.call import Call, Tensor
from gateway.scheduling.layout import (
    BatchShape,
    Filling,
    InputPlan,
    OutputRowsWrong,
    Plan,
    gather,
    scatter,
    wanted_by,
)


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def plan(rows, *inputs, datatype="FP32", tail=(), batchable=True, wanted=(), cuts=None, filling=None):
    size = rows * math.prod(tail) * 4
    shape = BatchShape(tuple((name, datatype, tail) for name in inputs or ("x",)))
    plans = tuple(InputPlan(i, size, filling) for i in range(len(inputs or ("x",))))
    return Plan(rows, shape, shape, plans, size * len(plans), batchable, wanted, cuts or {})


def identity(inputs):
    """What a model gives that answers with its inputs."""
    return [Tensor(each.name, each.datatype, each.shape, memoryview(b"".join(each.parts))) for each in inputs]


def test_rows_lie_one_behind_the_other(make_call):
    calls = [make_call(Tensor("x", "FP32", (n, 2), bytes([n] * 8 * n))) for n in (1, 3)]
    (batch,) = gather([plan(1, tail=(2,)), plan(3, tail=(2,))], calls)
    assert (batch.name, batch.shape, batch.size_bytes) == ("x", (4, 2), 32)
    assert b"".join(batch.parts) == bytes([1] * 8 + [3] * 24)


def test_inputs_are_found_whatever_their_order_in_the_call(make_call):
    a, b = Tensor("a", "FP32", (1,), b"aaaa"), Tensor("b", "FP32", (1,), b"bbbb")
    straight = plan(1, "a", "b")
    turned = straight._replace(inputs=(InputPlan(1, 4), InputPlan(0, 4)))
    batch = gather([straight, turned], [make_call(a, b), make_call(b, a)])
    assert [b"".join(each.parts) for each in batch] == [b"aaaaaaaa", b"bbbbbbbb"]


def test_an_unbatchable_request_keeps_its_shape(make_call):
    (batch,) = gather(
        [plan(1, tail=(2, 3), batchable=False)], [make_call(Tensor("x", "FP32", (2, 3), bytes(24)))]
    )
    assert batch.shape == (2, 3)


@given(
    members=st.lists(st.tuples(st.integers(1, 4), st.binary(min_size=8, max_size=8)), min_size=1, max_size=5)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_identity_gives_every_member_its_own_numbers(make_call, members):
    plans = [plan(rows, tail=(2,)) for rows, _ in members]
    calls = [make_call(Tensor("x", "FP32", (rows, 2), data * rows)) for rows, data in members]
    answers = scatter(identity(gather(plans, calls)), plans)
    for (rows, data), (answer,) in zip(members, answers, strict=True):
        assert (answer.shape, bytes(answer.data)) == ((rows, 2), data * rows)


texts = st.lists(st.binary(max_size=9), min_size=2, max_size=2)


@given(members=st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_identity_gives_every_member_its_own_texts(make_call, members):
    plans = [plan(len(rows), datatype="BYTES", tail=(2,)) for rows in members]
    encoded = [packed(*[text for row in rows for text in row]) for rows in members]
    calls = [
        make_call(Tensor("x", "BYTES", (len(rows), 2), data))
        for rows, data in zip(members, encoded, strict=True)
    ]
    inputs = gather(plans, calls)
    assert inputs[0].size_bytes == sum(map(len, encoded))
    answers = scatter(identity(inputs), plans)
    assert [bytes(answer[0].data) for answer in answers] == encoded
    assert [answer[0].shape for answer in answers] == [(len(rows), 2) for rows in members]


@given(
    members=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(0, 255)), min_size=1, max_size=4
    ),
    inner=st.integers(1, 3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_padded_axis_is_filled_and_cut_back(make_call, members, inner):
    bucket, fill = 8, struct.pack("<f", -1)
    plans, calls = [], []
    for rows, length, byte in members:
        filling = None
        if length < bucket:
            filling = Filling(length * inner * 4, fill * ((bucket - length) * inner))
        plans.append(
            Plan(
                rows,
                "k",
                BatchShape((("x", "FP32", (bucket, inner)),)),
                (InputPlan(0, rows * bucket * inner * 4, filling),),
                0,
                True,
                (),
                {"x": (1, length)} if filling else {},
            )
        )
        calls.append(
            make_call(Tensor("x", "FP32", (rows, length, inner), bytes([byte] * rows * length * inner * 4)))
        )
    (batch,) = gather(plans, calls)
    data = b"".join(batch.parts)
    assert len(data) == batch.size_bytes == math.prod(batch.shape) * 4
    assert batch.shape == (sum(rows for rows, _, _ in members), bucket, inner)
    missing = sum(rows * (bucket - length) * inner for rows, length, _ in members)
    whole = [data[i : i + 4] for i in range(0, len(data), 4)]
    assert whole.count(fill) >= missing
    for call, answer in zip(calls, scatter(identity([batch]), plans), strict=True):
        assert answer[0].shape == call.inputs[0].shape
        assert bytes(answer[0].data) == call.inputs[0].data


def test_outputs_that_do_not_follow_a_padded_axis_are_not_cut():
    member = plan(1, tail=(4,), cuts={"other": (1, 2)})
    output = Tensor("x", "FP32", (1, 4), bytes(16))
    assert scatter([output], [member])[0][0].shape == (1, 4)


def test_an_output_shorter_than_the_cut_stays():
    member = plan(1, tail=(4,), cuts={"x": (1, 9)})
    assert scatter([Tensor("x", "FP32", (1, 4), bytes(16))], [member])[0][0].shape == (1, 4)


@pytest.mark.parametrize("shape", [(), (2,), (4, 1)])
def test_a_batch_with_another_number_of_rows_is_refused(shape):
    output = Tensor("y", "FP32", shape, bytes(4 * math.prod(shape)))
    with pytest.raises(OutputRowsWrong, match=r"output y has shape .* for 3 rows; declare the model not"):
        scatter([output], [plan(1), plan(2)])


def test_one_batchable_member_is_checked_too():
    with pytest.raises(OutputRowsWrong):
        scatter([Tensor("y", "FP32", (5,), bytes(20))], [plan(1)])


def test_an_unbatchable_member_may_answer_any_shape():
    outputs = [Tensor("y", "FP32", (), bytes(4)), Tensor("z", "FP32", (7,), bytes(28))]
    assert scatter(outputs, [plan(1, batchable=False)]) == [outputs]


def test_members_get_only_the_outputs_they_want():
    outputs = [Tensor("y", "FP32", (2,), b"aaaabbbb"), Tensor("z", "FP32", (2,), b"ccccdddd")]
    answers = scatter(outputs, [plan(1, wanted=("z",)), plan(1)])
    assert [[(each.name, bytes(each.data)) for each in answer] for answer in answers] == [
        [("z", b"cccc")],
        [("y", b"bbbb"), ("z", b"dddd")],
    ]
    assert [each.name for each in scatter(outputs, [plan(2, wanted=("y",))])[0]] == ["y"]


def test_outputs_without_elements_still_have_rows():
    answers = scatter([Tensor("y", "FP32", (2, 0), b"")], [plan(1), plan(1)])
    assert [(answer[0].shape, bytes(answer[0].data)) for answer in answers] == [((1, 0), b""), ((1, 0), b"")]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([(), ()], ()),
        ([("y",), ("y",)], ("y",)),
        ([("y",), ()], ()),
        ([("y",), ("z",)], ("y", "z")),
        ([("z", "y"), ("y",)], ("z", "y")),
    ],
)
def test_a_batch_asks_for_what_any_member_wants(wanted, expected):
    assert wanted_by([plan(1, wanted=each) for each in wanted]) == expected


def test_calls_are_not_changed(make_call):
    data = bytes(range(8))
    call = make_call(Tensor("x", "FP32", (1, 2), data))
    assert isinstance(call, Call)
    (batch,) = gather([plan(1, tail=(2,))], [call])
    assert batch.parts[0] is data
