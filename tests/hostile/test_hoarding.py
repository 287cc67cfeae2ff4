"""Peers that have a lot kept for them: each request is in order, but what they ask for together is not."""

from __future__ import annotations

import gzip

import http2
import pytest
from peer import READY, STREAM_INFER, WATCH, Peer, call_block
from sent import EMPTY, EXPANDED, LARGE, LARGE_BYTES, SMALL, WAITING, infer
from siege import HELD_MIB, resident_bytes

HELD_BYTES = HELD_MIB << 20
NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL = 5, 8, 13
STREAM_REQUESTS = 512  # of one stream that may be unanswered
RPC_MESSAGE_BYTES = 64 << 10  # of RPCs that are no inference
CONNECTION_WINDOW_BYTES = 16 << 20
RPC_BYTES = 4096  # what an open RPC costs at least


@pytest.mark.slow
class TestStreams:
    def test_stream_whose_answers_are_not_read_is_pushed_back(self, gateway, siege):
        requests = 10_000 * http2.message(infer("echo", 1000))
        with siege.laid(), Peer(gateway.grpc, window=0) as peer:
            peer.open(1, STREAM_INFER)
            assert peer.upload(1, requests, for_s=0.5) < len(requests) / 2

    def test_stream_whose_requests_wait_is_pushed_back_until_it_is_cancelled(self, gateway, siege):
        requests = 5000 * http2.message(infer("waiting", 250))
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.open(1, STREAM_INFER)
            assert peer.upload(1, requests, for_s=0.3) < len(requests) / 2
            peer.send(http2.reset(1))
            peer.open(3, STREAM_INFER)
            peer.upload(3, SMALL, end=True)
            assert peer.answer(3).status == 0

    def test_answers_behind_one_that_is_not_there_yet_are_bounded(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in (1, 3, 5):
                peer.open(stream, STREAM_INFER)
                peer.upload(stream, WAITING + 100 * EXPANDED)
            peer.read_until(lambda: bool(peer.ended))
            for stream in peer.ended:
                answer = peer.answer(stream)
                assert (answer.status, answer.body) == (RESOURCE_EXHAUSTED, b"")
                assert int(answer.fields["grpc-retry-pushback-ms"]) > 0

    def test_smallest_requests_on_all_streams_are_bounded(self, gateway, siege):
        requests = WAITING + 5 * STREAM_REQUESTS * EMPTY
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in range(1, 1000, 2):
                peer.open(stream, STREAM_INFER)
                peer.upload(stream, requests)
            peer.call(1001, b"", path=READY)
            assert peer.answer(1001).status == 0

    def test_many_requests_in_one_frame_are_answered_in_their_order(self, gateway, siege):
        count = 3 * STREAM_REQUESTS
        requests = b"".join([http2.message(infer("echo") + b"\x1a\x04%04d" % i) for i in range(count)])
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.open(1, STREAM_INFER)
            peer.send(http2.data(1, requests))
            body = peer.answer(1).body
        assert peer.answer(1).status == 0
        found = [body.find(b"\x1a\x04%04d" % i) for i in range(count)]
        assert min(found) >= 0
        assert found == sorted(found)


@pytest.mark.slow
class TestBudget:
    def test_what_refused_requests_held_is_given_back(self, gateway, siege):
        nobody = infer("nobody", LARGE_BYTES // 4)
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in range(1, 1 + 2 * (2 * HELD_BYTES // LARGE_BYTES), 2):
                peer.call(stream, nobody)
                assert peer.answer(stream).status == NOT_FOUND
            peer.call(1001, LARGE)
            assert peer.answer(1001).status == 0

    def test_messages_that_are_taken_are_given_back(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream in range(1, 1 + 2 * (2 * HELD_BYTES // LARGE_BYTES), 2):
                peer.call(stream, LARGE, path=READY)  # nothing but unknown fields
                assert peer.answer(stream).status == 0

    def test_messages_that_nobody_takes_are_pushed_back(self, gateway, siege):
        messages = EMPTY + 20 * http2.message(bytes(RPC_MESSAGE_BYTES))
        with siege.laid(), Peer(gateway.grpc) as peer:
            sent = 0
            for stream in range(1, 60, 2):
                peer.open(stream, WATCH)
                sent += peer.upload(stream, messages, for_s=0.02)
            assert sent <= CONNECTION_WINDOW_BYTES + 2 * RPC_MESSAGE_BYTES
            assert not peer.ended

    def test_message_that_is_large_for_other_rpcs_is_refused(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.open(1, WATCH)
            peer.upload(1, http2.message(b"", length=RPC_MESSAGE_BYTES + 1))
            assert peer.answer(1).status == RESOURCE_EXHAUSTED

    def test_compressed_bombs_are_bounded_and_do_not_hold_up_others(self, gateway, siege):
        bomb = http2.message(gzip.compress(bytes(32 << 20)), flag=1)
        block = call_block(grpc_encoding="gzip")
        with siege.laid(), Peer(gateway.grpc) as peer:
            bombs = range(1, 600, 2)
            for stream in bombs:
                peer.send(http2.headers(stream, block))
                peer.upload(stream, bomb, end=True)
            assert {peer.answer(stream).status for stream in bombs} == {RESOURCE_EXHAUSTED}

    @pytest.mark.parametrize("flaw", ["timeout", "message"])
    def test_rpcs_that_were_refused_leave_nothing_behind(self, gateway, siege, flaw):
        block = call_block(WATCH, grpc_timeout="soon" if flaw == "timeout" else "")
        after = b"" if flaw == "timeout" else http2.message(b"", flag=7)
        with siege.laid(), Peer(gateway.grpc) as peer:
            sizes = []
            for first in range(1, 8000, 1000):
                streams = range(first, first + 1000, 2)
                for stream in streams:
                    peer.send(http2.headers(stream, block))
                    if after:
                        peer.send(http2.data(stream, EMPTY + after, end=False))
                assert {peer.answer(stream).status for stream in streams} == {INTERNAL}
                sizes.append(resident_bytes(gateway.process.pid))
        assert (sizes[-1] - sizes[1]) / 3000 < RPC_BYTES / 2
