"""Peers that send valid and broken frames in any order."""

from __future__ import annotations

import socket

import http2
import pytest
from header_block import field, indexed
from http2 import Reason, Setting, Type
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import INFER, READY, STREAM_INFER, WATCH, Peer, call_block
from sent import EMPTY, SMALL

EXAMPLES = 300
PATHS = (INFER, STREAM_INFER, READY, WATCH, "/nothing")
BLOCKS = [call_block(path) for path in PATHS] + [
    call_block(method="GET"),
    call_block(grpc_timeout="1m"),
    call_block(grpc_encoding="gzip"),
    call_block(content_type="text/plain"),
    call_block()[:-3],
    field(b"x", b"y", indexed=True),
    indexed(62),
    indexed(200),
]
MESSAGES = [EMPTY, SMALL, SMALL[:7], 3 * SMALL, http2.message(b"\xff\xff"), http2.message(b"", flag=1)]

streams = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 101, http2.MAX_WINDOW])
flags = st.sampled_from([0, 0, http2.END_STREAM, http2.END_HEADERS, 5, http2.PADDED, 0x20, 0xFF])
frames = st.one_of(
    st.builds(http2.headers, streams, st.sampled_from(BLOCKS), end=st.booleans()),
    st.builds(http2.data, streams, st.sampled_from(MESSAGES), end=st.booleans()),
    st.builds(http2.reset, streams, st.sampled_from(list(Reason))),
    st.builds(http2.window, streams, st.sampled_from([0, 1, 1 << 20, http2.MAX_WINDOW])),
    st.builds(
        http2.settings,
        st.dictionaries(
            st.sampled_from(list(Setting)), st.sampled_from([0, 1, 1 << 14, 1 << 24, (1 << 32) - 1])
        ),
    ),
    st.builds(http2.ping),
    # any type with any flags and body, and one that announces more or less than follows
    st.builds(http2.frame, st.sampled_from(list(Type)), streams, st.binary(max_size=40), flags),
    st.builds(
        lambda length, type_, flags, stream, body: http2.header(length, type_, flags, stream) + body,
        st.sampled_from([0, 1, 4, 5, 6, 8, 40, 1 << 14, 1 << 18, (1 << 24) - 1]),
        st.sampled_from(list(Type)),
        flags,
        streams,
        st.binary(max_size=40),
    ),
)


@pytest.mark.slow
def test_any_sequence_of_frames_ends_at_most_its_own_connection(gateway, siege):
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(frames, max_size=20))
    def attack(sequence):
        with Peer(gateway.grpc) as peer:
            try:
                peer.send(*sequence)
                peer.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has been ended already
            peer.goodbye()

    with siege.laid():
        attack()
