from __future__ import annotations

import itertools
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_PENDING_DESCRIPTORS,
    Begun,
    Body,
    Credits,
    Done,
    Failure,
    FrameReader,
    Freed,
    Goodbye,
    Hello,
    Kind,
    Load,
    Outcome,
    PadAxis,
    Probe,
    ProtocolError,
    Run,
    SegmentOpened,
    ServableSpec,
    Signature,
    TensorAt,
    TensorSpec,
    common_version,
    decode,
    encode,
)

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 4), ("n", "")),), (TensorSpec("y", "BYTES", ()),), "onnxruntime_onnx"
)
SPEC = ServableSpec(
    "m", "1", "/m", "loopback", "cpu", 2, 1, {"a": 1, "b": 0.5, "c": "é", "d": True}, SIGNATURE
)
BODIES = [
    (Kind.HELLO, Hello(1, 1, "gateway", 7, "cpu", 2, {"onnxruntime": "1.32"})),
    (Kind.LOAD, Load(3, SPEC)),
    (Kind.PROBE, Probe(3, 8, None, (PadAxis("x", 1, 0.0),))),
    (Kind.RUN, Run(3, 2, (TensorAt("x", "FP32", (2, 4), 1, 64, 32),), ("y",), 123)),
    (Kind.DONE, Done(Outcome.OK, 1, (TensorAt("y", "FP32", (), 1, 0, 4),), "", 1, 2, 3, 4, 5)),
    (Kind.RUN, Run(3, 2, (), (), 0, alone=True)),
    (Kind.BEGUN, Begun(batch=True)),
    (Kind.GOODBYE, Goodbye("the gateway ends", last=True)),
    (Kind.FREE, Freed(((1, 0), (1, 64)))),
    (Kind.FAILED, Failure("no", retryable=True)),
    (Kind.CREDITS, Credits(2)),
]


@pytest.mark.parametrize(("kind", "body"), BODIES, ids=lambda value: getattr(value, "name", ""))
def test_a_body_comes_back_as_it_was(kind, body):
    (frame,) = FrameReader().feed(encode(kind, 9, body), [])
    assert (frame.kind, frame.id, frame.descriptors) == (kind, 9, [])
    assert decode(frame.body, type(body)) == body


@given(
    st.lists(st.tuples(st.sampled_from(BODIES), st.integers(0, 2**64 - 1)), max_size=6),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_split_of_the_stream_gives_the_same_frames(frames, cuts):
    stream = b"".join(encode(kind, id_, body) for (kind, body), id_ in frames)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    reader, got = FrameReader(), []
    for start, end in itertools.pairwise(edges):
        got += reader.feed(stream[start:end], [])
    assert [(frame.kind, frame.id) for frame in got] == [(kind, id_) for (kind, _), id_ in frames]
    assert [decode(f.body, type(body)) for f, ((_, body), _) in zip(got, frames, strict=True)] == [
        body for (_, body), _ in frames
    ]


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=5))
def test_garbage_is_a_protocol_error_or_nothing(data, cuts):
    reader = FrameReader()
    try:
        at = 0
        for cut in [*cuts, len(data)]:
            for frame in reader.feed(data[at : at + cut], []):
                assert len(frame.body) <= MAX_BODY_BYTES
            at += cut
    except ProtocolError:
        pass


@given(st.binary(max_size=60), st.sampled_from([type(body) for _, body in BODIES]))
def test_a_garbage_body_is_a_protocol_error(data, type_):
    try:
        body = decode(data, type_)
    except ProtocolError:
        return
    assert isinstance(body, type_)


@given(st.sampled_from(BODIES), st.data())
def test_a_damaged_body_is_a_protocol_error(kind_and_body, data):
    _, body = kind_and_body
    raw = bytearray(msgspec.msgpack.encode(body))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(raw), type(body))
    except ProtocolError:
        pass


def test_text_that_is_not_utf8_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="malformed Goodbye"):
        decode(b"\x91\xa2\xff\xfe", Goodbye)


def test_fields_of_a_later_version_are_ignored():
    class LaterCredits(Body, frozen=True):
        credits: int
        reason: str

    assert decode(msgspec.msgpack.encode(LaterCredits(3, "more")), Credits) == Credits(3)


def test_fields_that_an_earlier_version_lacks_have_their_defaults():
    assert decode(msgspec.msgpack.encode([1, 2]), Done) == Done(1, 2)


def test_an_oversized_frame_is_refused_by_its_header():
    header = struct.pack("<IHHQ", MAX_BODY_BYTES + 1, Kind.RUN, 0, 1)
    with pytest.raises(ProtocolError, match=f"announces {MAX_BODY_BYTES + 1} bytes, the limit"):
        FrameReader().feed(header, [])


def test_an_oversized_body_is_not_sent():
    with pytest.raises(ProtocolError, match=r"a GOODBYE frame of .* is over the limit"):
        encode(Kind.GOODBYE, 0, Goodbye("x" * MAX_BODY_BYTES))


def test_descriptors_belong_to_the_frames_that_announce_them():
    stream = (
        encode(Kind.SEGMENT, 0, SegmentOpened(1, 64), descriptors=1)
        + encode(Kind.CREDITS, 0, Credits(1))
        + encode(Kind.SEGMENT, 0, SegmentOpened(2, 64), descriptors=2)
    )
    reader = FrameReader()
    first = reader.feed(stream[: HEADER_BYTES + 8], [10])
    rest = reader.feed(stream[HEADER_BYTES + 8 :], [11, 12])
    assert [frame.descriptors for frame in first + rest] == [[10], [], [11, 12]]
    assert reader.take_descriptors() == []


def test_descriptors_that_did_not_come_are_a_protocol_error():
    with pytest.raises(ProtocolError, match="announces 1 descriptors, 0 came"):
        FrameReader().feed(encode(Kind.SEGMENT, 0, SegmentOpened(1, 64), descriptors=1), [])


def test_no_descriptor_is_lost_when_garbage_follows():
    reader = FrameReader()
    good = encode(Kind.SEGMENT, 0, SegmentOpened(1, 64), descriptors=1)
    with pytest.raises(ProtocolError):
        reader.feed(good + b"\xff" * HEADER_BYTES, [10, 11])
    assert sorted(reader.take_descriptors()) == [10, 11]


def test_a_peer_cannot_use_up_our_descriptors():
    reader = FrameReader()
    with pytest.raises(ProtocolError, match="descriptors came that no frame announces"):
        reader.feed(b"", list(range(1000, 1001 + MAX_PENDING_DESCRIPTORS)))
    assert len(reader.take_descriptors()) == MAX_PENDING_DESCRIPTORS + 1


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 9), (4, 4), 4), ((1, 1), (0, 7), 1)],
)
def test_the_highest_common_version_is_spoken(ours, theirs, expected):
    assert common_version(ours, theirs) == expected


@pytest.mark.parametrize(("ours", "theirs"), [((1, 1), (2, 3)), ((4, 5), (1, 3)), ((1, 5), (5, 1))])
def test_no_common_version_names_both_ranges(ours, theirs):
    with pytest.raises(ProtocolError) as caught:
        common_version(ours, theirs)
    assert f"here {ours[0]} to {ours[1]}, there {theirs[0]} to {theirs[1]}" in str(caught.value)


def test_kinds_are_unique_and_small():
    assert len({kind.value for kind in Kind}) == len(Kind)
    assert max(Kind) < 2**16
