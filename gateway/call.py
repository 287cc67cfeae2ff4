"""The plain objects that cross the front end's seam: `Call` in, `Reply` out.

A `Call` is not a transport stream: probes, retries and tests make Calls too. Whoever makes one is its
`origin` and gets its replies in `Origin.settle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.errors import GatewayError

CallId = int
Parameter = bool | int | float | str


# Raw bytes of one tensor. The native front end's handles join here; all of them support the buffer protocol.
Buffer = bytes | memoryview


class Tensor(NamedTuple):
    """One named tensor. `datatype` is the protocol's name (`FP32`, `BYTES`, ...), `data` raw little-endian,
    row-major; BYTES elements are each a uint32 length and that many bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class BatchInput(NamedTuple):
    """One input of a batch: its parts, of all members, lie one behind the other."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size_bytes: int
    parts: list[Buffer]


class ShapeKey(Protocol):
    """Requests with the same key have the same model, version, parameters and requested outputs, and tensors
    of the same names, datatypes, shapes and byte counts. Equal only to itself. `elements_fit`: tensors of
    type BYTES are known to hold as many elements as they should.
    """

    @property
    def elements_fit(self) -> bool: ...


class Origin(Protocol):
    """Where the replies of a call go."""

    def settle(self, replies: Sequence[Reply]) -> None:
        """Deliver replies, at once and without raising. Output buffers are valid only until this returns."""
        ...

    def settle_batch(self, reply: BatchReply) -> None:
        """Deliver the answers of a batch, all of whose calls are this origin's; under the same conditions."""
        ...


class Call:
    """One inference request.

    `deadline_ns` is absolute on the gateway's monotonic clock, None without one. `outputs` names the
    requested outputs, empty for all. `metadata` keys are lower case. `shape_key`, when given, says
    which requests are alike. `size_bytes` is the size of the encoded message.
    """

    __slots__ = (
        "arrived_ns",
        "deadline_ns",
        "id",
        "inputs",
        "metadata",
        "model",
        "origin",
        "outputs",
        "parameters",
        "peer",
        "request_id",
        "shape_key",
        "size_bytes",
        "version",
    )

    def __init__(
        self,
        *,
        id: CallId,
        origin: Origin,
        model: str,
        inputs: tuple[Tensor, ...],
        arrived_ns: int,
        version: str = "",
        request_id: str = "",
        outputs: tuple[str, ...] = (),
        parameters: Mapping[str, Parameter] = {},
        deadline_ns: int | None = None,
        metadata: Mapping[str, str] = {},
        peer: str = "",
        size_bytes: int = 0,
        shape_key: ShapeKey | None = None,
    ) -> None:
        self.id = id
        self.origin = origin
        self.model = model
        self.version = version
        self.request_id = request_id
        self.inputs = inputs
        self.outputs = outputs
        self.parameters = parameters
        self.deadline_ns = deadline_ns
        self.metadata = metadata
        self.peer = peer
        self.arrived_ns = arrived_ns
        self.size_bytes = size_bytes
        self.shape_key = shape_key

    def data(self, position: int) -> Buffer:
        """Return the bytes of the input at this position."""
        return self.inputs[position].data


class Reply(NamedTuple):
    """An answer to one call: outputs or an error. A call is over with the reply whose `final` is true."""

    call: Call
    model: str
    version: str
    revision: int
    outputs: Sequence[Tensor] = ()
    error: GatewayError | None = None
    final: bool = True


class BatchReply(NamedTuple):
    """The final answers to calls that ran as one batch. Each call gets its rows of every output: `rows` of
    them from `starts` on, of `total_rows`, which every output has. `total_rows` 0: there is one call, and the
    outputs are its own as they stand.
    """

    calls: list[Call]
    starts: list[int]
    rows: list[int]
    total_rows: int
    model: str
    version: str
    revision: int
    outputs: Sequence[Tensor]
