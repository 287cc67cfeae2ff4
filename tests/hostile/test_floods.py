"""Peers that send as fast as they can what costs them nothing."""

from __future__ import annotations

import threading

import http2
import pytest
from header_block import field, indexed, table_size
from http2 import Reason, Setting, Type
from peer import READY, STREAM_INFER, WATCH, Peer, call_block
from sent import EMPTY, SMALL

FLOOD_S = 5.0  # much longer than any of them is suffered
RESETS = 50_000
BLOCK = call_block()


def each_stream(*frames, count=RESETS, first=1):
    """Return frames, made by functions of the stream's number, for so many streams."""
    return b"".join([frame(stream) for stream in range(first, first + 2 * count, 2) for frame in frames])


def head(stream):
    return http2.headers(stream, BLOCK)


def body(stream):
    return http2.data(stream, SMALL)


def broken(stream):
    """Overflow a stream's window, for which the server has to reset it."""
    return 2 * http2.window(stream, http2.MAX_WINDOW)


RESET_FLOODS = {
    "whole requests": each_stream(head, body, http2.reset),
    "only heads": each_stream(head, http2.reset),
    "resets that the server has to send": each_stream(head, body, broken),
}
EMPTY_FLOODS = {
    "pings": (b"", http2.ping()),
    "settings": (b"", http2.settings({Setting.INITIAL_WINDOW_SIZE: 1})),
    "empty data": (head(1), http2.data(1, b"", end=False)),
    "priorities": (head(1), http2.frame(Type.PRIORITY, 1, bytes(5))),
    "unknown frames": (head(1), http2.frame(Type.UNKNOWN, 1, bytes(5))),
    "empty continuations": (http2.frame(Type.HEADERS, 1, BLOCK), http2.frame(Type.CONTINUATION, 1)),
    "endless heads": (
        http2.frame(Type.HEADERS, 1, BLOCK),
        http2.frame(Type.CONTINUATION, 1, field(b"x", bytes(1000).replace(b"\0", b"y"))),
    ),
}


@pytest.mark.slow
class TestFloods:
    @pytest.mark.parametrize("flood", RESET_FLOODS.values(), ids=RESET_FLOODS)
    def test_rapid_resets_are_refused_and_others_served(self, gateway, siege, flood):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.flood(flood, for_s=FLOOD_S)
            assert peer.goodbye().reason == Reason.ENHANCE_YOUR_CALM

    @pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
    @pytest.mark.parametrize(("opening", "frame"), EMPTY_FLOODS.values(), ids=EMPTY_FLOODS)
    def test_frames_that_carry_nothing_are_refused(self, gateway, siege, opening, frame, reads):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.wait_for_settings()  # an acknowledgement must not come between
            peer.send(opening)
            peer.flood(1000 * frame, for_s=FLOOD_S if reads else 0.1, reads=reads)
            assert peer.goodbye().reason == Reason.ENHANCE_YOUR_CALM

    def test_window_updates_from_many_do_not_hold_up_others(self, gateway, siege):
        def flood():
            with Peer(gateway.grpc) as peer:
                peer.flood(10_000 * http2.window(0, 1), for_s=0.5)

        threads = [threading.Thread(target=flood) for _ in range(8)]
        with siege.laid():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def test_requests_that_are_taken_back_at_once_do_not_hold_up_others(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in range(1, 400, 2):
                peer.open(stream, STREAM_INFER)
                peer.upload(stream, 500 * EMPTY)
                peer.send(http2.reset(stream))
            peer.call(401, b"", path=READY)
            assert peer.answer(401).status == 0

    def test_watches_that_are_taken_back_at_once_do_not_hold_up_others(self, gateway, siege):
        block = call_block(WATCH)
        with siege.laid(), Peer(gateway.grpc) as peer:
            for first in range(1, 10_000, 200):  # fewer at once than are taken for a flood
                for stream in range(first, first + 198, 2):
                    peer.send(http2.headers(stream, block), http2.data(stream, EMPTY, end=False))
                    peer.send(http2.reset(stream))
                peer.call(first + 198, b"", path=READY)
                assert peer.answer(first + 198).status == 0


class TestHeaders:
    def test_header_list_over_the_limit_is_answered_with_431(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.send(http2.headers(1, BLOCK + field(b"x", b"y" * 20_000)))
            assert peer.answer(1).fields == {":status": "431"}

    def test_header_list_far_over_the_limit_ends_the_connection(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.send(http2.headers(1, BLOCK + field(b"x", b"y" * 100_000)))
            assert peer.goodbye().reason == Reason.ENHANCE_YOUR_CALM

    def test_small_block_that_stands_for_a_large_list_ends_the_connection(self, gateway, siege):
        bomb = field(b"x", b"y" * 4000, indexed=True) + 16_000 * indexed(62)
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.send(http2.headers(1, BLOCK + bomb))
            assert peer.goodbye().reason == Reason.ENHANCE_YOUR_CALM

    def test_table_larger_than_allowed_ends_the_connection(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.send(http2.headers(1, table_size(1 << 20) + BLOCK))
            assert peer.goodbye().reason in (Reason.PROTOCOL_ERROR, Reason.COMPRESSION_ERROR)

    @pytest.mark.slow
    def test_as_many_and_as_large_heads_as_are_allowed_are_bounded(self, gateway, siege):
        block = BLOCK + field(b"x", b"y" * 15_000)
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in range(1, 2 * 1024, 2):
                peer.send(http2.headers(stream, block))
            peer.send(http2.headers(2049, block))
            assert peer.answer(2049).reset == Reason.REFUSED_STREAM
