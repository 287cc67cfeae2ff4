from __future__ import annotations

import pytest

from gateway.workerpool.remote.pieces import MAX_MESSAGE_BYTES, PIECE_BYTES, Outbox, frames_in
from protos import pool_link_pb2 as messages
from wire.frames import ProtocolError


@pytest.mark.parametrize("size_bytes", [1, 127, 128, 16_383, 16_384, PIECE_BYTES])
def test_message_is_what_the_generated_class_makes(size_bytes):
    data = bytes(i % 251 for i in range(size_bytes))
    outbox = Outbox()
    outbox.put(data)
    message = outbox.take()
    assert message == messages.FromGateway(frames=data).SerializeToString()
    assert frames_in(message) == data
    assert len(message) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x12",
        b"\x12\x80",
        b"\x12\x05abc",
        b"\x12\x01ab",
        b"\x12\xff\xff\xff\xff\xff\xff\x01",
        messages.FromGateway(open=messages.Open(slot="cpu")).SerializeToString(),
    ],
)
def test_message_without_a_piece_is_a_breach(message):
    with pytest.raises(ProtocolError):
        frames_in(message)


def test_messages_are_cut_without_regard_to_parts():
    parts = [b"a" * (PIECE_BYTES - 1), b"", memoryview(b"bc"), bytearray(b"d")]
    outbox = Outbox()
    outbox.put(*parts)
    assert outbox.size_bytes == PIECE_BYTES + 2
    assert frames_in(outbox.take()) == parts[0] + b"b"
    assert frames_in(outbox.take()) == b"cd"
    assert not outbox
    assert outbox.size_bytes == 0
