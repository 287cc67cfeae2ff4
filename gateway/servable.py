"""A servable: one loaded version of a model, what it takes, how its requests may be batched, and its queues.

`plan` validates a request against the signature and says how it takes part in batches. Plans are cached by
datatypes and shapes, so for nearly every request validation is one dictionary look-up and a comparison of
byte counts.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from gateway.errors import InvalidRequest
from gateway.scheduling.layout import BatchShape, Filling, InputPlan, Plan
from gateway.scheduling.queue import ServableQueues
from wire.datatypes import BYTES, DATATYPES, ELEMENT_SIZE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.call import Buffer, Call
    from gateway.config.document import ModelDocument, Pad
    from gateway.scheduling.slot import Hosting
    from gateway.telemetry.account import VersionAccount
    from wire.frames import Signature, TensorSpec

_MAX_PLANS = 4096
_MAX_ELEMENTS = 1 << 59  # of 8 bytes: what numpy can count, empty dimensions left out
_LENGTH = struct.Struct("<I")
_FILL_FORMATS = {
    "BOOL": "<?", "UINT8": "<B", "UINT16": "<H", "UINT32": "<I", "UINT64": "<Q", "INT8": "<b", "INT16": "<h",
    "INT32": "<i", "INT64": "<q", "FP16": "<e", "FP32": "<f", "FP64": "<d",
}  # fmt: skip


class TensorInvalid(InvalidRequest):
    """A tensor is not what the model takes."""

    def __init__(self, model: str, tensor: str, problem: str) -> None:
        super().__init__(f"model {model}: input {tensor!r} {problem}")


class InputsInvalid(InvalidRequest):
    """The set of inputs, outputs or parameters is wrong."""

    def __init__(self, model: str, problem: str) -> None:
        super().__init__(f"model {model}: {problem}")


class ServablePolicy:
    """The policy part of a document in the units of the data path. Replaced as a whole when the document
    changes.
    """

    __slots__ = (
        "default_deadline_ns",
        "max_delay_ns",
        "max_queue_size",
        "max_request_bytes",
        "max_rows",
        "priorities",
        "retry",
        "run_timeout_ns",
    )

    def __init__(self, document: ModelDocument, *, batchable: bool) -> None:
        batching, limits = document.batching, document.limits
        self.max_rows = batching.max_batch_size if batchable else 1
        self.max_delay_ns = batching.max_queue_delay_us * 1000 if batchable else 0
        self.max_queue_size = batching.max_queue_size
        self.max_request_bytes = limits.max_request_bytes
        self.run_timeout_ns = limits.run_timeout_ms * 1_000_000
        self.retry = document.retry == "auto"
        self.priorities = document.priorities
        default_ms = document.deadline.default_ms
        self.default_deadline_ns = default_ms * 1_000_000 if default_ms else None


class Servable:
    """One loaded model version.

    `follows` lists the output axes that follow a padded input axis: (output, axis, input). `reason` says why
    it is not batchable, '' when it is.
    """

    def __init__(
        self,
        document: ModelDocument,
        version: str,
        revision: int,
        signature: Signature,
        account: VersionAccount,
        *,
        batchable: bool,
        reason: str = "",
        follows: Sequence[tuple[str, int, str]] = (),
        used_ns: int = 0,
    ) -> None:
        self.model = document.model
        self.version = version
        self.revision = revision
        self.signature = signature
        self.account = account
        self.batchable = batchable
        self.reason = reason
        self.follows = follows
        self.policy = ServablePolicy(document, batchable=batchable)
        self.queues = ServableQueues(document.model, document.batching.max_queue_size)
        self.pads: Mapping[str, Pad] = document.batching.pad
        self.hostings: list[Hosting] = self.queues.hostings
        self.unsettled = 0  # calls that wait or run
        self.used_ns = used_ns  # when a request last came for it
        self._inputs = {spec.name: (i, spec) for i, spec in enumerate(signature.inputs)}
        self._outputs = frozenset(spec.name for spec in signature.outputs)
        self._plans: dict[object, Plan] = {}

    def apply(self, document: ModelDocument, revision: int) -> None:
        """Take over a document's policy, at once and for what already waits too."""
        self.policy = ServablePolicy(document, batchable=self.batchable)
        self.queues.max_size = document.batching.max_queue_size
        self.pads = document.batching.pad
        self.revision = revision
        self._plans.clear()

    @property
    def max_rows(self) -> int:
        return self.policy.max_rows

    @property
    def max_delay_ns(self) -> int:
        return self.policy.max_delay_ns

    @property
    def busy(self) -> bool:
        return self.unsettled > 0

    def plan(self, call: Call) -> Plan:
        """Return how this call takes part in batches.

        Raises:
            InvalidRequest: naming the tensor, what was expected and what came.
        """
        key = call.shape_key
        if key is not None:
            plan = self._plans.get(key)
            if plan is not None and plan.covers(key):
                return plan
        shapes = (tuple([tensor[:3] for tensor in call.inputs]), call.outputs)
        plan = self._plans.get(shapes)
        if plan is None:
            plan = self._make_plan(call)
        self._check_sizes(call, plan)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[shapes] = plan
        if key is not None:
            self._plans[key] = plan  # the same plan for all keys of these shapes
        return plan

    def _check_sizes(self, call: Call, plan: Plan) -> None:
        inputs = call.inputs
        for position, size_bytes, filling in plan.inputs:
            tensor = inputs[position]
            if tensor.datatype == BYTES:
                self._check_elements(tensor.name, tensor.data, math.prod(tensor.shape))
                continue
            expected = size_bytes if filling is None else _unfilled(size_bytes, filling)
            if len(tensor.data) != expected:
                raise TensorInvalid(
                    self.model,
                    tensor.name,
                    f"has {len(tensor.data)} bytes, {tensor.datatype} {list(tensor.shape)} takes {expected}",
                )

    def _make_plan(self, call: Call) -> Plan:
        positions = self._positions(call)
        rows = self._rows(call, positions)
        unknown = [name for name in call.outputs if name not in self._outputs]
        if unknown:
            raise InputsInvalid(
                self.model, f"unknown output {unknown[0]!r}; it has {', '.join(sorted(self._outputs))}"
            )
        plans, shapes, cuts = [], [], {}
        for spec, position in zip(self.signature.inputs, positions, strict=True):
            tensor = call.inputs[position]
            shape, filling = self._filled(spec, tensor.shape)
            if filling is not None:
                for output, axis, source in self.follows:
                    if source == spec.name:
                        cuts[output] = (axis, tensor.shape[self.pads[spec.name].axis])
            size_bytes = math.prod(shape) * ELEMENT_SIZE_BYTES.get(spec.datatype, 0)
            plans.append(InputPlan(position, size_bytes, filling))
            shapes.append((spec.name, spec.datatype, shape[1:] if self.batchable else shape))
        batch_shape = BatchShape(tuple(shapes))
        return Plan(
            rows,
            repr(batch_shape),  # text keeps its hash, and a key is looked up several times for each batch
            batch_shape,
            tuple(plans),
            sum(plan.size_bytes for plan in plans),
            self.batchable,
            call.outputs,
            cuts,
            fixed=all(spec.datatype != BYTES for spec in self.signature.inputs),
            plain=not call.outputs and not cuts,
            revision=self.revision,
        )

    def _positions(self, call: Call) -> list[int]:
        """Return where each of the signature's inputs is in the call."""
        found: dict[int, int] = {}
        for position, tensor in enumerate(call.inputs):
            known = self._inputs.get(tensor.name)
            if known is None:
                raise TensorInvalid(
                    self.model,
                    tensor.name,
                    f"is unknown; the model takes {', '.join(self._inputs) or 'none'}",
                )
            if known[0] in found:
                raise TensorInvalid(self.model, tensor.name, "is given twice")
            found[known[0]] = position
        missing = [spec.name for i, spec in enumerate(self.signature.inputs) if i not in found]
        if missing:
            raise TensorInvalid(self.model, missing[0], "is missing")
        return [found[i] for i in range(len(found))]

    def _rows(self, call: Call, positions: Sequence[int]) -> int:
        """Check datatypes and shapes; return the number of rows, 1 for what is not batched."""
        rows: int | None = None
        for spec, position in zip(self.signature.inputs, positions, strict=True):
            tensor = call.inputs[position]
            if tensor.datatype != spec.datatype:
                known = "" if tensor.datatype in DATATYPES else ", which is no datatype of the protocol"
                raise TensorInvalid(
                    self.model,
                    spec.name,
                    f"must be {spec.datatype}, not {tensor.datatype or 'nothing'}{known}",
                )
            if not _fits(spec, tensor.shape) or _unthinkable(tensor.shape):
                raise TensorInvalid(
                    self.model, spec.name, f"must have shape {list(spec.shape)}, not {list(tensor.shape)}"
                )
            if not self.batchable:
                continue
            if rows is None:
                rows = tensor.shape[0]
            elif tensor.shape[0] != rows:
                raise TensorInvalid(
                    self.model,
                    spec.name,
                    f"has {tensor.shape[0]} rows, other inputs of the request have {rows}",
                )
        if rows is None:
            return 1
        if rows > self.policy.max_rows:
            raise InputsInvalid(
                self.model, f"a batch of {rows} rows is over max_batch_size {self.policy.max_rows}"
            )
        if rows == 0:
            raise InputsInvalid(self.model, "a request needs at least one row")
        return rows

    def _filled(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Filling | None]:
        """Return an input's shape in the batch and how it is filled up to its bucket."""
        pad = self.pads.get(spec.name)
        if pad is None or not self.batchable or spec.datatype not in _FILL_FORMATS or pad.axis >= len(shape):
            return shape, None
        length = shape[pad.axis]
        bucket = pad.bucket_for(length)
        inner = math.prod(shape[pad.axis + 1 :])
        if bucket is None or bucket == length or length * inner == 0:
            return shape, None
        try:
            value = pad.value if spec.datatype in ("FP16", "FP32", "FP64") else int(pad.value)
            element = struct.pack(_FILL_FORMATS[spec.datatype], value)
        except (struct.error, ValueError, OverflowError) as error:
            raise TensorInvalid(
                self.model,
                spec.name,
                f"cannot be padded to {bucket}: {pad.value} is no {spec.datatype}",
            ) from error
        filling = Filling(length * inner * len(element), element * ((bucket - length) * inner))
        return (*shape[: pad.axis], bucket, *shape[pad.axis + 1 :]), filling

    def _check_elements(self, name: str, data: Buffer, count: int) -> None:
        """Check that BYTES data is exactly `count` elements, each a uint32 length and that many bytes."""
        at, end, found = 0, len(data), 0
        while at + 4 <= end and found < count:
            at += 4 + _LENGTH.unpack_from(data, at)[0]
            found += 1
        if at != end or found != count:
            raise TensorInvalid(
                self.model,
                name,
                f"must hold {count} elements, each a 4-byte length and that many bytes; {end} bytes do not",
            )


def _unfilled(size_bytes: int, filling: Filling) -> int:
    block, fill = filling
    return size_bytes // (block + len(fill)) * block


def _unthinkable(shape: tuple[int, ...]) -> bool:
    """Whether no array can have this shape, even an empty one."""
    return math.prod(size for size in shape if size) >= _MAX_ELEMENTS


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(spec.shape) and all(
        size >= 0 and declared in (-1, size) for declared, size in zip(spec.shape, shape, strict=True)
    )
