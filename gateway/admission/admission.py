"""Admission: draining, the size of one request, and the bytes that all requests in the gateway hold
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import Exhausted, Expired, InvalidRequest, NotReady

if TYPE_CHECKING:
    from gateway.call import Call


class Draining(NotReady):
    def __init__(self) -> None:
        super().__init__("this gateway is draining; send the request to another one")


class MessageTooLarge(Exhausted):
    def __init__(self, model: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"model {model}: a request of {size_bytes} bytes is over the limit of {limit_bytes} bytes"
        )


class GatewayFull(Exhausted):
    retry_after_ms = 200

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the requests in this gateway hold {limit_bytes} bytes, which is its limit")


class DeadlinePassed(Expired):
    def __init__(self) -> None:
        super().__init__("the deadline had passed when the request arrived")


class SequencesNotOffered(InvalidRequest):
    def __init__(self, model: str) -> None:
        super().__init__(f"model {model} does not take sequences: parameter 'sequence_id' is not allowed")


class Admission:
    """`held_bytes` is what admitted calls hold; whoever settles them gives it back."""

    def __init__(self, max_held_bytes: int) -> None:
        self.draining = False
        self.held_bytes = 0
        self._max_held_bytes = max_held_bytes

    def check(
        self, model: str, size_bytes: int, deadline_ns: int | None, now_ns: int, max_request_bytes: int | None
    ) -> None:
        """Let a call of this size and deadline pass.

        Raises:
            GatewayError: why not.
        """
        if self.draining:
            raise Draining
        if deadline_ns is not None and deadline_ns <= now_ns:
            raise DeadlinePassed
        if max_request_bytes is not None and size_bytes > max_request_bytes:
            raise MessageTooLarge(model, size_bytes, max_request_bytes)
        if self.held_bytes + size_bytes > self._max_held_bytes:
            raise GatewayFull(self._max_held_bytes)


def check_parameters(call: Call) -> None:
    """Let a call's parameters pass.

    Raises:
        SequencesNotOffered
    """
    if call.parameters.get("sequence_id"):
        raise SequencesNotOffered(call.model)
