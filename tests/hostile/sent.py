"""What the attacks are made of."""

from __future__ import annotations

from typing import Final

import http2
from wire_calls import numbers, request


def infer(model: str, values: int = 1) -> bytes:
    """Return a request of four bytes for each value."""
    return request(model, numbers("x", [0.0] * values)).SerializeToString()


SMALL: Final = http2.message(infer("echo"))
WAITING: Final = http2.message(infer("waiting", 60))  # takes longer than an attack does
EMPTY: Final = http2.message(b"")  # asks for a model without a name
LARGE_BYTES: Final = 1_000_000  # nearly the limit of a message, for the request and its answer
LARGE: Final = infer("echo", LARGE_BYTES // 4)
EXPANDED: Final = http2.message(infer("expanding", LARGE_BYTES // 4000))
