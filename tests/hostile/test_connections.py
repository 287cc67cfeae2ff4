"""Peers that have many connections, and that break them off."""

from __future__ import annotations

import resource

import http2
import pytest
from peer import STREAM_INFER, Peer, call_block
from sent import LARGE, SMALL, WAITING

SPARE_DESCRIPTORS = 200
REQUESTS = {"small": SMALL, "large": http2.message(LARGE), "waiting": WAITING}


def many(wanted):
    """Return as many as are wanted, or as this process may open connections."""
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS)


@pytest.fixture
def connect(gateway):
    """Open that many connections, which are closed at the end."""
    peers = []

    def connect(count):
        opened = [Peer(gateway.grpc) for _ in range(many(count))]
        peers.extend(opened)
        return opened

    yield connect
    for peer in peers:
        peer.socket.close()


@pytest.mark.slow
class TestConnections:
    def test_hundreds_with_idle_streams_are_bounded(self, siege, connect):
        block = call_block(STREAM_INFER)
        idle = b"".join([http2.headers(stream, block) for stream in range(1, 20, 2)])
        with siege.laid():
            peers = connect(500)
            for peer in peers:
                peer.send(idle)
            for peer in peers:
                peer.wait_for_settings()
            for peer in peers:
                peer.abort()

    @pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
    def test_aborted_connections_under_load_leave_nothing_behind(self, siege, connect, request_):
        with siege.laid():
            for _ in range(5):
                peers = connect(10)
                for peer in peers:
                    for stream in (1, 3, 5):
                        peer.open(stream)
                        peer.upload(stream, request_, end=True, for_s=0.05)
                for peer in peers:
                    peer.abort()

    def test_aborted_connections_in_the_middle_of_a_request_leave_nothing_behind(self, siege, connect):
        half = http2.message(LARGE)[: len(LARGE) // 2]
        with siege.laid():
            for peer in connect(100):
                peer.open(1)
                peer.upload(1, half, for_s=0.05)
                peer.abort()
