"""Peers that do not read, do not go on, or do not even begin."""

from __future__ import annotations

import resource
import time

import grpc
import http2
import pytest
import trustme
from http2 import Reason
from peer import INFER, READY, STREAM_INFER, WATCH, Goodbye, Peer, call_block
from sent import EMPTY, LARGE, LARGE_BYTES, SMALL, WAITING
from siege import HELD_MIB, Siege, eventually, open_sockets
from wire_calls import Wire

RESOURCE_EXHAUSTED = 8
HELD_BYTES = HELD_MIB << 20
# how many of the largest requests or answers may be held, so that something is left for small ones
FITTING = HELD_BYTES // LARGE_BYTES
ANNOUNCED = http2.message(b"", length=LARGE_BYTES)
STALLED_S = 30.0  # as native/src/transport has it
HANDSHAKE_S = 10.0
SPARE_DESCRIPTORS = 200


def streams(count, first=1):
    return range(first, first + 2 * count, 2)


def many(wanted):
    """Return as many as are wanted, or as this process may open connections."""
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS)


@pytest.mark.slow
class TestPeersThatDoNotRead:
    def test_answers_that_are_not_read_are_bounded_and_given_back(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc, window=0) as peer:
            held, refused = streams(FITTING), streams(4, 2 * FITTING + 1)
            for stream in held:
                peer.call(stream, LARGE)
            peer.read_until(lambda: set(held) <= peer.answers.keys())
            for stream in refused:
                peer.call(stream, LARGE)
                answer = peer.answer(stream)
                assert (answer.status, answer.body) == (RESOURCE_EXHAUSTED, b"")
                assert int(answer.fields["grpc-retry-pushback-ms"]) > 0
        with siege.laid(), Peer(gateway.grpc, window=0) as peer:
            for stream in held:
                peer.call(stream, LARGE)
            peer.read_until(lambda: set(held) <= peer.answers.keys())
            assert not peer.ended

    def test_a_thousand_requests_without_a_window_are_answered_when_it_opens(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc, window=0) as peer:
            asked = streams(1000)
            for stream in asked:
                peer.send(http2.headers(stream, call_block()), http2.data(stream, SMALL))
            peer.read_until(lambda: set(asked) <= peer.answers.keys())
            assert not any(answer.body for answer in peer.answers.values())
            peer.send(http2.settings({http2.Setting.INITIAL_WINDOW_SIZE: 1 << 16}))
            assert [peer.answer(stream).status for stream in asked] == [0] * len(asked)

    def test_peer_that_reads_nothing_at_all_is_given_up(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc, buffer_bytes=4096) as peer:
            peer.wait_for_settings()
            sockets = open_sockets(gateway.process.pid)
            block = call_block()
            for stream in streams(FITTING):
                peer.send(http2.headers(stream, block))
                peer.send(*cut(stream, http2.message(LARGE)))
            eventually(lambda: open_sockets(gateway.process.pid) < sockets, "the connection is closed")

    @pytest.mark.long
    def test_peer_that_answers_pings_and_opens_no_window_is_given_up(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc, window=0) as peer:
            peer.call(1, LARGE)
            began_s = time.monotonic()
            assert peer.goodbye(STALLED_S + 10).reason == Reason.ENHANCE_YOUR_CALM
            assert time.monotonic() - began_s > STALLED_S - 2


def cut(stream, body):
    """Return a whole body as frames, without a look at any window."""
    pieces = [body[i : i + http2.FRAME_BYTES] for i in range(0, len(body), http2.FRAME_BYTES)]
    return [*(http2.data(stream, piece, end=False) for piece in pieces), http2.data(stream, b"")]


@pytest.mark.slow
class TestPeersThatDoNotGoOn:
    @pytest.mark.parametrize("path", [INFER, STREAM_INFER, READY])
    def test_announced_requests_are_bounded_and_given_back_at_once(self, gateway, siege, path):
        with siege.laid(), Peer(gateway.grpc) as peer:
            writing, refused = streams(FITTING), streams(40, 2 * FITTING + 1)
            for stream in writing:
                peer.open(stream, path)
                peer.upload(stream, ANNOUNCED)
            for _ in range(10):
                for stream in writing:
                    peer.upload(stream, b"x")
            for stream in refused:
                peer.open(stream, path)
                peer.upload(stream, ANNOUNCED)
                answer = peer.answer(stream)
                assert answer.status == RESOURCE_EXHAUSTED
                assert int(answer.fields["grpc-retry-pushback-ms"]) > 0
            assert not peer.ended & set(writing)
        with siege.laid(), Peer(gateway.grpc) as peer:
            peer.call(1, LARGE)
            assert peer.answer(1).status == 0

    @pytest.mark.long
    def test_requests_that_stop_in_the_middle_are_given_up(self, gateway, siege):
        with siege.laid(), Peer(gateway.grpc) as peer:
            for stream, path in enumerate((INFER, READY, STREAM_INFER, WATCH)):
                peer.open(2 * stream + 1, path)
                peer.upload(2 * stream + 1, http2.message(b"", length=1000) + b"x")
            peer.open(9, WATCH)
            peer.upload(9, 3 * EMPTY)  # two more than anybody will take
            peer.open(11, STREAM_INFER)
            peer.upload(11, 20 * WAITING)  # nothing is missing: it is the gateway that takes long
            began_s = time.monotonic()
            for stream in (1, 3, 5, 7, 9):
                assert peer.answer(stream, STALLED_S + 10).reset == Reason.CANCEL
            assert time.monotonic() - began_s > STALLED_S - 2
            assert 11 not in peer.ended


@pytest.mark.slow
class TestPeersThatDoNotBegin:
    def test_connections_that_stop_in_the_middle_of_a_frame_are_given_up(self, gateway, siege):
        openings = (http2.PREFACE, http2.PREFACE + http2.header(100, 1, 4, 1)[:5])
        with siege.laid():
            peers = [Peer(gateway.grpc, opening=openings[i % 2], mute=True) for i in range(many(300))]
            try:
                assert [peer.goodbye() for peer in peers] == [Goodbye(None, b"")] * len(peers)
            finally:
                for peer in peers:
                    peer.socket.close()

    @pytest.mark.parametrize("opening", [b"", http2.PREFACE[:10]], ids=["nothing", "half a preface"])
    def test_connections_that_say_nothing_are_bounded(self, gateway, siege, opening):
        with siege.laid():
            peers = [Peer(gateway.grpc, opening=opening) for _ in range(many(500))]
            for peer in peers:
                peer.socket.close()

    @pytest.mark.long
    @pytest.mark.parametrize("opening", [b"", http2.PREFACE[:10]], ids=["nothing", "half a preface"])
    def test_connections_that_say_nothing_are_given_up(self, gateway, siege, opening):
        with siege.laid(), Peer(gateway.grpc, opening=opening, mute=True) as peer:
            began_s = time.monotonic()
            assert peer.goodbye(HANDSHAKE_S + 5) == Goodbye(None, b"")
            assert time.monotonic() - began_s > HANDSHAKE_S - 2


@pytest.fixture(scope="module")
def secured(start, tmp_path_factory):
    """A gateway with TLS, and how it is called."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    with start("--tls-cert", str(certificate), "--tls-key", str(key)) as process:
        yield process, authority


@pytest.fixture(scope="module")
def secured_siege(secured):
    process, authority = secured
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    address = f"localhost:{process.grpc.rpartition(':')[2]}"
    return Siege(process, lambda: Wire(address, credentials))


# a handshake record of 512 bytes that begins with a ClientHello
HALF_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(100)


@pytest.mark.slow
class TestTls:
    def test_handshakes_that_are_not_finished_are_bounded(self, secured, secured_siege):
        process, _ = secured
        with secured_siege.laid():
            peers = [Peer(process.grpc, opening=HALF_HELLO) for _ in range(many(300))]
            for peer in peers:
                peer.socket.close()

    @pytest.mark.parametrize("opening", [http2.PREFACE, bytes(1000), b"\x16\x03\x01\xff\xff" + bytes(1000)])
    def test_what_is_no_handshake_ends_the_connection(self, secured, secured_siege, opening):
        process, _ = secured
        with secured_siege.laid(), Peer(process.grpc, opening=opening) as peer:
            peer.socket.recv(1000)  # an alert
            assert peer.socket.recv(1000) == b""

    @pytest.mark.long
    def test_handshakes_that_are_not_finished_are_given_up(self, secured, secured_siege):
        process, _ = secured
        with secured_siege.laid(), Peer(process.grpc, opening=HALF_HELLO) as peer:
            assert peer.goodbye(HANDSHAKE_S + 5) == Goodbye(None, b"")
