"""Frames: a fixed header, then a msgpack body whose layout the kind decides.

Header, little-endian, 16 bytes: body length (u32), kind (u16), number of descriptors sent along (u16), id
(u64). The id of a request is echoed by its answer. Structure never comes from shared memory, only from
frames; a receiver trusts neither lengths nor offsets before it has checked them.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, TypeVar

import msgspec

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
MAX_BODY_BYTES = 16 << 20
MAX_PENDING_DESCRIPTORS = 16  # of a frame that has not come whole; more would let a peer use ours up

_HEADER = struct.Struct("<IHHQ")
HEADER_BYTES = _HEADER.size


class Kind(enum.IntEnum):
    """What a frame says. To the worker: 1-29, to the gateway: 30 and up, HELLO to RETIRE both ways."""

    HELLO = 1
    GOODBYE = 2
    SEGMENT = 3
    RETIRE = 4
    FREE = 5
    LOAD = 10
    PROBE = 11
    WARM_UP = 12
    UNLOAD = 13
    REPORT = 14
    RUN = 20
    CANCEL = 21
    ANSWER = 30
    FAILED = 31
    CREDITS = 32
    DONE = 33
    BEGUN = 34


class ProtocolError(Exception):
    """The peer sent what no version of this protocol allows; the link is closed."""


class Body(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A frame's body. Array-like: fields may be appended in later versions, never reordered."""


class TensorSpec(Body, frozen=True):
    """One input or output as the model declares it; -1 is a dynamic dimension, `symbols` its name or ''."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    symbols: tuple[str, ...] = ()


class Signature(Body, frozen=True):
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform: str = ""


class Hello(Body, frozen=True):
    """The first frame of each side. `runtimes` is {name: version or 'unavailable: why'}; a gateway leaves the
    worker's fields empty."""

    protocol_min: int
    protocol_max: int
    name: str
    pid: int
    device: str = ""
    capacity: int = 0
    runtimes: dict[str, str] = {}


class Goodbye(Body, frozen=True):
    """Why the sender closes the link. A worker answers a gateway's; `last`: it ends now, nobody else is
    connected.
    """

    reason: str
    last: bool = False


class SegmentOpened(Body, frozen=True):
    """A new segment of the sender's arena; its descriptor travels with this frame."""

    segment: int
    size_bytes: int


class SegmentRetired(Body, frozen=True):
    """The sender will not use this segment again; the receiver unmaps it."""

    segment: int


class Freed(Body, frozen=True):
    """Regions of the receiver's arena that the sender has read: (segment, offset)."""

    regions: tuple[tuple[int, int], ...]


class PadAxis(Body, frozen=True):
    """An input axis that is padded to buckets, and the value it is padded with."""

    input: str
    axis: int
    value: float


class ServableSpec(Body, frozen=True):
    """Everything that decides what a session is: equal specs share one session.

    `width` is the capacity that one run occupies (threads on a CPU slot, 1 on an accelerator), `count` how
    many run at once.
    """

    model: str
    version: str
    path: str
    runtime: str
    device: str
    count: int
    width: int
    options: dict[str, str | int | float | bool] = {}
    signature: Signature | None = None
    fingerprint: str = ""


class Load(Body, frozen=True):
    """Load a servable; answered by `Loaded` or FAILED. `servable` is the id that later frames use on this
    link.
    """

    servable: int
    spec: ServableSpec


class Loaded(Body, frozen=True):
    signature: Signature
    load_ns: int
    memory_bytes: int


class Probe(Body, frozen=True):
    """Find out whether the servable may be batched; `declared` is the operator's word, which is not
    probed.
    """

    servable: int
    max_batch_size: int
    declared: bool | None
    pads: tuple[PadAxis, ...] = ()


class Probed(Body, frozen=True):
    """`reason` says why not. `follows` lists the outputs' axes that follow a padded input axis: (output,
    axis, input).
    """

    batchable: bool
    reason: str
    follows: tuple[tuple[str, int, str], ...] = ()


class WarmUp(Body, frozen=True):
    """Run the servable on generated inputs of each of these batch sizes, `runs` times."""

    servable: int
    batch_sizes: tuple[int, ...]
    runs: int


class WarmedUp(Body, frozen=True):
    """Mean run time of each batch size asked for, in the same order."""

    run_ns: tuple[int, ...]


class Unload(Body, frozen=True):
    servable: int


class Report(Body, frozen=True):
    """The worker's memory: resident set of the process, its use of the arenas, and what each servable added
    at load.
    """

    rss_bytes: int
    arena_bytes: int
    servables: dict[int, int]


class Failure(Body, frozen=True):
    """Why a control request failed. `retryable` is false where trying again cannot help, a corrupt file for
    example.
    """

    message: str
    retryable: bool = False


class TensorAt(Body, frozen=True):
    """Where one tensor lies: in a segment of the sender's arena, 64-byte aligned."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    segment: int
    offset: int
    size_bytes: int


class Run(Body, frozen=True):
    """One batch. `deadline_ns` is absolute CLOCK_MONOTONIC, 0 for none: past it the batch is dropped before
    it starts. `alone`: nothing runs beside it, whichever gateway it is from, and a BEGUN frame says when it
    starts.
    """

    servable: int
    rows: int
    inputs: tuple[TensorAt, ...]
    outputs: tuple[str, ...]
    deadline_ns: int = 0
    alone: bool = False


class Cancel(Body, frozen=True):
    """Drop these batches unless they have started; they are still answered."""

    batches: tuple[int, ...]


class Outcome(enum.IntEnum):
    OK = 0
    EXPIRED = 1
    CANCELLED = 2
    MODEL_FAILED = 3
    TOO_LARGE = 4
    UNKNOWN_SERVABLE = 5


class Done(Body, frozen=True):
    """What became of a batch. Times are CLOCK_MONOTONIC; `credits` returns capacity to this gateway."""

    outcome: int
    credits: int
    outputs: tuple[TensorAt, ...] = ()
    message: str = ""
    received_ns: int = 0
    started_ns: int = 0
    ran_ns: int = 0
    run_ns: int = 0
    ended_ns: int = 0


class Credits(Body, frozen=True):
    """Capacity granted to this gateway, in addition to what it holds."""

    credits: int


class Begun(Body, frozen=True):
    """The control request of this id, or the batch that runs alone, is being worked on. If the worker ends
    now it may be the cause, and what has not begun is not.
    """

    batch: bool = False


class Frame(NamedTuple):
    kind: int
    id: int
    body: bytes
    descriptors: list[int]


T = TypeVar("T", bound=Body)

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type[Body], msgspec.msgpack.Decoder[Body]] = {}


def encode(kind: Kind, id: int, body: Body, descriptors: int = 0) -> bytes:
    """Return the bytes of one frame.

    Raises:
        ProtocolError: the body is larger than `MAX_BODY_BYTES`.
    """
    payload = _encode(body)
    if len(payload) > MAX_BODY_BYTES:
        raise ProtocolError(
            f"a {kind.name} frame of {len(payload)} bytes is over the limit of {MAX_BODY_BYTES}"
        )
    return _HEADER.pack(len(payload), kind, descriptors, id) + payload


def decode(body: bytes, type_: type[T]) -> T:
    """Return the body as `type_`.

    Raises:
        ProtocolError: it is not one.
    """
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.msgpack.Decoder(type_)
    try:
        return decoder.decode(body)  # type: ignore[return-value]  # the table maps a type to its own decoder
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed {type_.__name__}: {error}") from error


class FrameReader:
    """Cuts a byte stream into frames. Descriptors arrive with the first byte of the frame they belong to, or
    before. Whoever takes a descriptor from a frame's list owns it; what is left there must be closed.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: list[int]) -> list[Frame]:
        """Return the frames that are complete now.

        Raises:
            ProtocolError: a header announces more than the limits allow, or descriptors that did not come.
        """
        if descriptors:
            self._descriptors += descriptors
        frames: list[Frame] = []
        try:
            self._cut(data, frames)
        except ProtocolError:
            self._descriptors += [fd for frame in frames for fd in frame.descriptors]
            raise
        return frames

    def _cut(self, data: bytes, frames: list[Frame]) -> None:
        rest = self._buffer
        if rest:
            rest += data
        buffer = rest or data  # mostly whole frames arrive: nothing is put together then
        at, have = 0, len(buffer)
        while have - at >= HEADER_BYTES:
            length, kind, count, id_ = _HEADER.unpack_from(buffer, at)
            if length > MAX_BODY_BYTES:
                raise ProtocolError(f"a frame announces {length} bytes, the limit is {MAX_BODY_BYTES}")
            end = at + HEADER_BYTES + length
            if end > have:
                break
            owned = self._take(count) if count else []
            frames.append(Frame(kind, id_, bytes(buffer[at + HEADER_BYTES : end]), owned))
            at = end
        if rest:
            del rest[:at]
        elif at < have:
            rest += data[at:]
        if len(self._descriptors) > MAX_PENDING_DESCRIPTORS:
            raise ProtocolError(f"{len(self._descriptors)} descriptors came that no frame announces")

    def _take(self, count: int) -> list[int]:
        if count > len(self._descriptors):
            raise ProtocolError(f"a frame announces {count} descriptors, {len(self._descriptors)} came")
        taken = self._descriptors[:count]
        del self._descriptors[:count]
        return taken

    def take_descriptors(self) -> list[int]:
        """Return descriptors that belong to no frame that was returned, for closing."""
        left, self._descriptors = self._descriptors, []
        return left


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int:
    """Return the highest protocol version that both ranges hold.

    Raises:
        ProtocolError: there is none; the message names both ranges.
    """
    version = min(ours[1], theirs[1])
    if version < max(ours[0], theirs[0]):
        raise ProtocolError(
            f"no common protocol version: here {ours[0]} to {ours[1]}, there {theirs[0]} to {theirs[1]}"
        )
    return version
