"""Calls, plans and queue items without a front end and without a model."""

from __future__ import annotations

import itertools

import pytest

from gateway.call import Call, Tensor
from gateway.scheduling.decision import NEVER
from gateway.scheduling.item import QueueItem
from gateway.scheduling.layout import BatchShape, InputPlan, Plan


class NoOrigin:
    def settle(self, replies):
        raise AssertionError("scheduling settles nothing")

    settle_batch = settle


@pytest.fixture
def make_call():
    ids = itertools.count()

    def make(*inputs: Tensor, model: str = "m", outputs: tuple[str, ...] = ()):
        return Call(
            id=next(ids), origin=NoOrigin(), model=model, inputs=inputs, arrived_ns=0, outputs=outputs
        )

    return make


@pytest.fixture
def make_item(make_call):
    """Items of FP32 tensors of one element for each row; sequence numbers count up."""
    sequence = itertools.count()

    def make(rows=1, deadline_ns=NEVER, priority=0, enqueued_ns=0, implied_ns=10**12):
        call = make_call(Tensor("x", "FP32", (rows,), bytes(4 * rows)))
        shape = BatchShape((("x", "FP32", ()),))
        plan = Plan(rows, shape, shape, (InputPlan(0, 4 * rows),), 4 * rows, True)
        return QueueItem(call, None, plan, priority, enqueued_ns, next(sequence), implied_ns, deadline_ns)

    return make
