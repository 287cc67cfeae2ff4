"""Whatever a peer sends, reading its frames ends in frames or in a ProtocolError, and loses no descriptor."""

from __future__ import annotations

import itertools
import struct
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wire.frames
from wire.frames import (
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_PENDING_DESCRIPTORS,
    Body,
    FrameReader,
    Kind,
    ProtocolError,
    decode,
)

untimed = settings(deadline=None)  # a loaded machine is no failure

BODIES = [
    type_
    for type_ in vars(wire.frames).values()
    if isinstance(type_, type) and issubclass(type_, Body) and type_ is not Body
]

# MessagePack that says the unusual: numbers too large, lengths of what does not follow, nesting, extensions.
ODDITIES = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\xa2\xff\xfe",
    b"\xa3\xed\xa0\x80", b"\x91" * 3000, b"\x81\xa1x" * 2000, b"\xc1", b"\xc7\x04\x01abcd",
    b"\xd6\xff\xff\xff\xff\xff", b"\xc0",
]  # fmt: skip


def values(type_):
    """Values of a field's type, as far as the frames use it."""
    arguments = typing.get_args(type_)
    origin = typing.get_origin(type_)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(*map(values, arguments), max_size=2)
    if arguments:
        return st.one_of(*map(values, arguments))
    if isinstance(type_, type) and issubclass(type_, Body):
        return bodies(type_)
    return {
        int: st.integers(-(2**63), 2**64 - 1),
        str: st.text(max_size=5),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        type(None): st.none(),
    }[type_]


def bodies(type_):
    hints = typing.get_type_hints(type_)
    return st.builds(type_, **{field: values(hint) for field, hint in hints.items()})


@st.composite
def damaged_bodies(draw):
    """A type, and the encoding of a value of some type with a few bytes changed."""
    encoded = bytearray(msgspec.msgpack.encode(draw(bodies(draw(st.sampled_from(BODIES))))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(encoded)))
        piece = draw(st.one_of(st.binary(max_size=3), st.sampled_from(ODDITIES)))
        encoded[at : at + draw(st.integers(0, 3))] = piece
    return draw(st.sampled_from(BODIES)), bytes(encoded)


@st.composite
def streams(draw):
    """Bytes that are mostly frames, and the descriptors that came along."""
    stream, announced = b"", 0
    for _ in range(draw(st.integers(0, 5))):
        body = draw(st.binary(max_size=40))
        length = draw(st.one_of(st.just(len(body)), st.just(len(body)), st.integers(0, 2**32 - 1)))
        kind = draw(st.one_of(st.sampled_from(sorted(Kind)), st.integers(0, 2**16 - 1)))
        count = draw(st.one_of(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2**16 - 1)))
        announced += count
        stream += struct.pack("<IHHQ", length, kind, count, draw(st.integers(0, 2**64 - 1))) + body
    stream += draw(st.binary(max_size=20))
    most = MAX_PENDING_DESCRIPTORS  # more than that are refused, depending on the cut
    came = draw(st.one_of(st.just(min(announced, most)), st.integers(0, most)))
    return stream, list(range(1000, 1000 + came))


def read(pieces, descriptors):
    """Return the frames, the descriptors that are left, and whether a ProtocolError ended it."""
    reader, frames, failed = FrameReader(), [], False
    for piece in pieces:
        try:
            frames += reader.feed(piece, descriptors)
        except ProtocolError:
            failed = True
            break
        finally:
            descriptors = []
    return frames, reader.take_descriptors(), failed


@pytest.mark.parametrize("type_", BODIES, ids=lambda type_: type_.__name__)
def test_odd_bodies_are_protocol_errors_or_bodies(type_):
    cases = [(oddity, b"\x91" + oddity, b"\x9c" + oddity * 12) for oddity in ODDITIES]
    for encoded in itertools.chain(*cases):
        try:
            body = decode(encoded, type_)
        except ProtocolError:
            continue
        assert isinstance(body, type_)


@pytest.mark.slow
@untimed
@given(damaged_bodies())
def test_damaged_bodies_are_protocol_errors_or_bodies(damaged):
    type_, encoded = damaged
    try:
        body = decode(encoded, type_)
    except ProtocolError:
        return
    assert decode(msgspec.msgpack.encode(body), type_) == body or "nan" in repr(body)


@pytest.mark.slow
@untimed
@given(st.sampled_from(BODIES).flatmap(bodies))
def test_every_body_comes_back_as_it_was(body):
    assert decode(msgspec.msgpack.encode(body), type(body)) == body


@pytest.mark.slow
@untimed
@given(streams(), st.lists(st.integers(0, 300), max_size=8))
def test_any_stream_ends_the_same_however_it_is_cut(stream, cuts):
    stream, descriptors = stream
    whole, _, failed = read([stream], descriptors)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    frames, left, failed_in_pieces = read([stream[a:b] for a, b in itertools.pairwise(edges)], descriptors)
    if edges != [0]:
        assert failed_in_pieces == failed
        assert sorted(left + [fd for frame in frames for fd in frame.descriptors]) == descriptors
    if not failed:
        assert frames == whole or edges == [0]
    assert stream.startswith(b"".join(map(encoded_again, frames)))


def encoded_again(frame):
    assert len(frame.body) <= MAX_BODY_BYTES
    header = struct.pack("<IHHQ", len(frame.body), frame.kind, len(frame.descriptors), frame.id)
    assert len(header) == HEADER_BYTES
    return header + frame.body
