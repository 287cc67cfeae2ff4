"""Reads requests that look like earlier ones without parsing them again.

Callers send the same model, names and shapes over and over; only the tensors differ, and they stand at the
end of the message. What stands before them is remembered with its meaning: a message of the same size that
begins with the same bytes, and has the same lengths in the same places, means the same. Anything else is
decoded as usual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.call import Tensor
from gateway.frontend.codec import Request, decode_request, varint

if TYPE_CHECKING:
    from gateway.call import Buffer

_MAX_LAYOUTS = 1024
_MAX_HEAD_BYTES = 4096
_VIEW_FROM_BYTES = 16 << 10
# Requests that never repeat (an id of their own each) are not worth remembering: learn no more than this and
# a part of what hits.
_FREE_LESSONS = 256
_LESSONS_PER_HIT = 0.1
_RAW_TAG = b"\x3a"


class LayoutKey:
    """The shape key of the requests of one layout, whose BYTES are not looked at."""

    __slots__ = ()
    elements_fit = False


class _Layout(NamedTuple):
    """`gaps` are the bytes before each tensor and where they begin; `spans` where each tensor lies."""

    size_bytes: int
    gaps: tuple[tuple[int, int, bytes], ...]
    spans: tuple[tuple[int, int], ...]
    request: Request
    heads: tuple[tuple[str, str, tuple[int, ...]], ...]
    key: LayoutKey


class RequestReader:
    """One for each front end. `read` returns the request and the key of its shapes, None for the first of a
    kind.
    """

    def __init__(self) -> None:
        self._head_sizes: dict[int, int] = {}  # {message size: size of the head that was last seen with it}
        self._layouts: dict[bytes, _Layout] = {}  # {head: layout}
        self._lessons = float(_FREE_LESSONS)

    def read(self, message: bytes) -> tuple[Request, LayoutKey | None]:
        """Read a ModelInferRequest.

        Raises:
            MalformedRequest: it is none, or breaks the protocol's rules.
        """
        head_size = self._head_sizes.get(len(message))
        if head_size is not None:
            layout = self._layouts.get(message[:head_size])
            if layout is not None and layout.size_bytes == len(message):
                for start, end, gap in layout.gaps:
                    if message[start:end] != gap:
                        break
                else:
                    self._lessons += _LESSONS_PER_HIT
                    return _filled(layout, message), layout.key
        request = decode_request(message)
        if self._lessons >= 1:
            self._learn(message, request)
        return request, None

    def _learn(self, message: bytes, request: Request) -> None:
        """Remember the layout of a message whose tensors are raw and stand at its end."""
        spans: list[tuple[int, int]] = []
        gaps: list[tuple[int, int, bytes]] = []
        at = len(message)
        for tensor in reversed(request.inputs):
            end = at
            at -= len(tensor.data)
            gap = _RAW_TAG + varint(len(tensor.data))
            spans.append((at, end))
            gaps.append((at - len(gap), at, gap))
            at -= len(gap)
            if at < 0 or message[at : at + len(gap)] != gap:
                return  # typed contents, or fields behind the tensors
        if not request.inputs or at > _MAX_HEAD_BYTES:
            return
        self._lessons -= 1
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
            self._head_sizes.clear()
        self._head_sizes[len(message)] = at
        self._layouts[message[:at]] = _Layout(
            len(message),
            tuple(reversed(gaps)),
            tuple(reversed(spans)),
            request._replace(inputs=()),
            tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs),
            LayoutKey(),
        )


def _filled(layout: _Layout, message: bytes) -> Request:
    data: Buffer = message if layout.size_bytes < _VIEW_FROM_BYTES else memoryview(message)
    if len(layout.spans) == 1:
        (start, end), (name, datatype, shape) = layout.spans[0], layout.heads[0]
        inputs: tuple[Tensor, ...] = (Tensor(name, datatype, shape, data[start:end]),)
    else:
        inputs = tuple(
            [
                Tensor(name, datatype, shape, data[start:end])
                for (start, end), (name, datatype, shape) in zip(layout.spans, layout.heads, strict=True)
            ]
        )
    model, version, id_, parameters, _, outputs = layout.request
    return Request(model, version, id_, parameters, inputs, outputs)
