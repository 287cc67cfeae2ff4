"""How requests become one batch and a batch's outputs become answers: contiguous rows, padded axes filled and
cut back.

Nothing is copied here. Inputs are lists of buffers that the link writes one behind the other; outputs are
slices of the worker's arena, except where a cut leaves gaps between the pieces.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, NamedTuple

from gateway.call import BatchInput, Reply, Tensor
from gateway.errors import ModelFailure
from wire.datatypes import BYTES, ELEMENT_SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from gateway.call import BatchReply, Buffer, Call, ShapeKey

_LENGTH = struct.Struct("<I")


class Filling(NamedTuple):
    """An input axis that is filled up: after each block of the original bytes come the fill bytes."""

    block_bytes: int
    fill: bytes


class InputPlan(NamedTuple):
    """One input of a request: its place in the request, and its bytes in the batch."""

    position: int
    size_bytes: int
    filling: Filling | None = None


class BatchShape(NamedTuple):
    """What the members of a batch have in common: each input's name, datatype and shape without rows, after
    padding.
    """

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]


class Plan(NamedTuple):
    """How one shape of request takes part in batches.

    `batchable` false: the request runs alone and its shapes stand as they are. `wanted` empty: all outputs.
    `cuts` is {output: (axis, length)} for outputs that follow a padded axis. `fixed`: no input's size depends
    on more than its shape. `plain`: the answer is all outputs, uncut.
    """

    rows: int
    key: Hashable
    shape: BatchShape
    inputs: tuple[InputPlan, ...]
    size_bytes: int
    batchable: bool
    wanted: tuple[str, ...] = ()
    cuts: Mapping[str, tuple[int, int]] = {}
    fixed: bool = False
    plain: bool = False
    revision: int = 0  # of the document under which the call was taken

    def covers(self, key: ShapeKey) -> bool:
        """Whether all calls of this key have the tensors that the plan was made for, unseen."""
        return self.fixed or key.elements_fit


class OutputRowsWrong(ModelFailure):
    """A batched model must answer one row for each input row."""

    def __init__(self, name: str, shape: Sequence[int], rows: int) -> None:
        super().__init__(
            f"output {name} has shape {list(shape)} for {rows} rows; declare the model not batchable"
        )


def gather(plans: Sequence[Plan], calls: Sequence[Call]) -> list[BatchInput]:
    """Return the inputs of a batch of these calls, which share a batch shape."""
    first = plans[0]
    rows = sum(plan.rows for plan in plans)
    inputs = []
    for i, (name, datatype, tail) in enumerate(first.shape.inputs):
        parts: list[Buffer] = []
        size_bytes = 0
        for plan, call in zip(plans, calls, strict=True):
            position, declared_bytes, filling = plan.inputs[i]
            data = call.data(position)
            size_bytes += declared_bytes
            if filling is None:
                parts.append(data)
            else:
                _fill(parts, data, filling)
        if datatype == BYTES:
            size_bytes = sum(len(part) for part in parts)
        shape = (rows, *tail) if first.batchable else tail
        inputs.append(BatchInput(name, datatype, shape, size_bytes, parts))
    return inputs


def gather_alike(plan: Plan, calls: Sequence[Call]) -> list[BatchInput]:
    """Return the same for calls that all have this plan."""
    count = len(calls)
    if count == 1 or any(planned.filling for planned in plan.inputs):
        return gather([plan] * count, calls)
    rows = plan.rows * count
    inputs = []
    for (name, datatype, tail), (position, size_bytes, _) in zip(plan.shape.inputs, plan.inputs, strict=True):
        parts = [call.data(position) for call in calls]
        total = sum([len(part) for part in parts]) if datatype == BYTES else size_bytes * count
        inputs.append(BatchInput(name, datatype, (rows, *tail), total, parts))
    return inputs


def _fill(parts: list[Buffer], data: Buffer, filling: Filling) -> None:
    block, fill = filling
    if len(data) == block:
        parts += (data, fill)
        return
    view = memoryview(data)
    for at in range(0, len(view), block):
        parts += (view[at : at + block], fill)


def wanted_by(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Return the outputs that any of the plans wants; empty for all."""
    first = plans[0].wanted
    if all(plan.wanted == first for plan in plans):
        return first
    if any(not plan.wanted for plan in plans):
        return ()
    return tuple(dict.fromkeys(name for plan in plans for name in plan.wanted))


def scatter(outputs: Sequence[Tensor], plans: Sequence[Plan]) -> list[list[Tensor]]:
    """Return each member's outputs.

    Raises:
        OutputRowsWrong: a batched model answered with another number of rows.
    """
    if len(plans) == 1 and not plans[0].cuts:
        check_rows(outputs, plans[0].rows, plans[0])
        return [[tensor for tensor in outputs if not plans[0].wanted or tensor.name in plans[0].wanted]]
    rows = sum(plan.rows for plan in plans)
    answers: list[list[Tensor]] = [[] for _ in plans]
    for name, datatype, shape, data in outputs:
        if not shape or shape[0] != rows:
            if len(plans) == 1 and not plans[0].batchable:
                answers[0].append(_cut(Tensor(name, datatype, shape, data), plans[0]))
                continue
            raise OutputRowsWrong(name, shape, rows)
        starts = _row_starts(datatype, shape, data)
        view, tail, at = memoryview(data), shape[1:], 0
        for plan, answer in zip(plans, answers, strict=True):
            end = at + plan.rows
            if not plan.wanted or name in plan.wanted:
                part = Tensor(name, datatype, (plan.rows, *tail), view[starts[at] : starts[end]])
                answer.append(_cut(part, plan) if plan.cuts else part)
            at = end
    return answers


def check_rows(outputs: Sequence[Tensor], rows: int, plan: Plan) -> None:
    """Check that every output of a batch of this plan has as many rows as its inputs.

    Raises:
        OutputRowsWrong
    """
    if plan.batchable:
        for tensor in outputs:
            if not tensor.shape or tensor.shape[0] != rows:
                raise OutputRowsWrong(tensor.name, tensor.shape, rows)


def split(reply: BatchReply) -> list[Reply]:
    """Return the answers of a batch one by one. Nothing is copied."""
    calls, starts, rows, total_rows, model, version, revision, outputs = reply
    if not total_rows:
        return [Reply(call, model, version, revision, outputs) for call in calls]
    answers: list[list[Tensor]] = [[] for _ in calls]
    for name, datatype, shape, data in outputs:
        bounds = _row_starts(datatype, shape, data)
        view, tail = memoryview(data), shape[1:]
        for answer, start, count in zip(answers, starts, rows, strict=True):
            part = view[bounds[start] : bounds[start + count]]
            answer.append(Tensor(name, datatype, (count, *tail), part))
    return [
        Reply(call, model, version, revision, answer) for call, answer in zip(calls, answers, strict=True)
    ]


def _row_starts(datatype: str, shape: tuple[int, ...], data: Buffer) -> Sequence[int]:
    """Return where each row begins, and the end."""
    rows = shape[0]
    if datatype != BYTES:
        row_bytes = len(data) // rows if rows else 0
        return range(0, len(data) + 1, row_bytes) if row_bytes else [0] * (rows + 1)
    starts, at, per_row = [0], 0, math.prod(shape[1:])
    for _ in range(rows):
        for _ in range(per_row):
            at += 4 + _LENGTH.unpack_from(data, at)[0]
        starts.append(at)
    return starts


def _cut(tensor: Tensor, plan: Plan) -> Tensor:
    """Cut a padded axis back to the request's own length."""
    cut = plan.cuts.get(tensor.name)
    if cut is None or tensor.datatype == BYTES:
        return tensor
    axis, length = cut
    name, datatype, shape, data = tensor
    if axis >= len(shape) or shape[axis] <= length:
        return tensor
    inner_bytes = math.prod(shape[axis + 1 :]) * ELEMENT_SIZE_BYTES[datatype]
    block, keep = shape[axis] * inner_bytes, length * inner_bytes
    view = memoryview(data)
    blocks = math.prod(shape[:axis])
    cut_data: Buffer = (
        view[:keep] if blocks == 1 else b"".join([view[i * block : i * block + keep] for i in range(blocks)])
    )
    return Tensor(name, datatype, (*shape[:axis], length, *shape[axis + 1 :]), cut_data)
