from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workerpool.remote.frames import FrameStream, arena_bytes, behind
from wire.frames import Begun, Done, Goodbye, Kind, Outcome, ProtocolError, Run, TensorAt, encode


def tensor(name, size_bytes, segment=9, offset=640):
    return TensorAt(name, "UINT8", (size_bytes,), segment, offset, size_bytes)


def run(id_, *data):
    tensors = behind([tensor(f"x{i}", len(each)) for i, each in enumerate(data)])
    return encode(Kind.RUN, id_, Run(1, 1, tensors, ())) + b"".join(data)


def joined(received):
    return [(frame.kind, frame.id, [b"".join(parts) for parts in frame.tensors]) for frame in received]


STREAM = b"".join(
    [
        encode(Kind.GOODBYE, 0, Goodbye("x" * 300)),
        run(1, b"first", b"", b"second" * 50),
        run(2),
        run(3, b""),
        encode(Kind.BEGUN, 4, Begun()),
        encode(Kind.DONE, 5, Done(Outcome.OK, 1, behind([tensor("y", 3)]))) + b"out",
    ]
)
FRAMES = [
    (Kind.GOODBYE, 0, []),
    (Kind.RUN, 1, [b"first", b"", b"second" * 50]),
    (Kind.RUN, 2, []),
    (Kind.RUN, 3, [b""]),
    (Kind.BEGUN, 4, []),
    (Kind.DONE, 5, [b"out"]),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_the_same_however_the_stream_was_cut(cuts):
    stream, received = FrameStream(1000), []
    bounds = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(bounds):
        received += stream.feed(memoryview(STREAM[start:end]))
    assert joined(received) == FRAMES


def test_frames_come_byte_by_byte():
    stream = FrameStream(1000)
    received = [frame for byte in STREAM for frame in stream.feed(memoryview(bytes([byte])))]
    assert joined(received) == FRAMES


@pytest.mark.parametrize(
    "data",
    [
        run(1, b"x" * 1001),
        encode(Kind.RUN, 1, Run(1, 1, (tensor("x", 3),), ())),
        encode(Kind.RUN, 1, Run(1, 1, (tensor("x", -1, 0, 0),), ())),
        encode(Kind.RUN, 1, Run(1, 1, (tensor("x", 3, 0, 0), tensor("y", 3, 0, 0)), ())),
        encode(Kind.DONE, 1, Begun(batch=True)),
        encode(Kind.BEGUN, 1, Begun(), descriptors=1),
        b"\xff\xff\xff\xff" + bytes(12),
    ],
    ids=["too much", "of an arena", "negative", "overlapping", "malformed", "descriptors", "too long"],
)
def test_what_no_frame_may_say_is_a_breach(data):
    with pytest.raises(ProtocolError):
        FrameStream(1000).feed(memoryview(data))


def test_tensors_behind_a_frame_have_no_gaps():
    placed = behind([tensor("x", 3), tensor("y", 100), tensor("z", 0)])
    assert [(each.segment, each.offset) for each in placed] == [(0, 0), (0, 3), (0, 103)]


def test_arena_takes_whole_lines():
    assert arena_bytes([]) == 64
    assert arena_bytes([1, 64, 65]) == 64 + 64 + 128
