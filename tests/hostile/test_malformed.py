"""What is wrong in HTTP/2, in HTTP or in gRPC is refused as its specification says, and nothing else is."""

from __future__ import annotations

import gzip
import zlib

import http2
import pytest
from header_block import field, indexed
from http2 import Reason, Setting, Type
from peer import INFER, READY, STREAM_INFER, WATCH, Goodbye, Peer, call_block
from sent import EMPTY, SMALL, WAITING, infer

INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 3, 4, 8
UNIMPLEMENTED, INTERNAL = 12, 13
LIMIT_BYTES = 1 << 20

BLOCK = call_block()
WAITS = call_block(STREAM_INFER)
HEAD = http2.headers(1, BLOCK)
ASKED = HEAD + http2.data(1, WAITING)  # and not answered yet
PROTOCOL_ERROR = (Reason.PROTOCOL_ERROR,)
# where RFC 9113 and 7541 name another reason, and the library gives the general one
SIZE_ERROR = (Reason.FRAME_SIZE_ERROR, Reason.PROTOCOL_ERROR)
HEADERS_ERROR = (Reason.COMPRESSION_ERROR, Reason.PROTOCOL_ERROR)

# {what is wrong: (frames, how the connection may be ended)}
ENDS_THE_CONNECTION = {
    "random bytes": (b"\xde\xad\xbe\xef" * 20, SIZE_ERROR),
    "a frame over the limit": (http2.header(1 << 20, Type.DATA, 0, 1), SIZE_ERROR),
    "settings of 16 MiB": (http2.header((1 << 24) - 1, Type.SETTINGS, 0, 0), SIZE_ERROR),
    "data on stream 0": (http2.data(0, SMALL), PROTOCOL_ERROR),
    "headers on stream 0": (http2.headers(0, BLOCK), PROTOCOL_ERROR),
    "data on a stream that was never opened": (http2.data(5, SMALL), PROTOCOL_ERROR),
    "an even stream": (http2.headers(2, BLOCK), PROTOCOL_ERROR),
    "a stream below the last": (http2.headers(3, BLOCK) + HEAD, PROTOCOL_ERROR),
    "data after the end": (ASKED + http2.data(1, SMALL), (Reason.STREAM_CLOSED, Reason.PROTOCOL_ERROR)),
    "an index beyond the table": (http2.headers(1, BLOCK + indexed(1000)), HEADERS_ERROR),
    "index 0": (http2.headers(1, indexed(0)), HEADERS_ERROR),
    "half a header": (http2.headers(1, BLOCK + b"\0\x05ab"), HEADERS_ERROR),
    "Huffman code that ends nowhere": (http2.headers(1, BLOCK + b"\0\x84\xff\xff\xff\xff\1x"), HEADERS_ERROR),
    "an upper-case name": (http2.headers(1, BLOCK + field(b"Name", b"x")), PROTOCOL_ERROR),
    "a value with a zero byte": (http2.headers(1, BLOCK + field(b"x", b"a\0b")), PROTOCOL_ERROR),
    "an unknown pseudo-header": (http2.headers(1, field(b":x", b"y") + BLOCK), PROTOCOL_ERROR),
    "a continuation of nothing": (http2.frame(Type.CONTINUATION, 1, BLOCK, 4), PROTOCOL_ERROR),
    "a ping amid headers": (http2.frame(Type.HEADERS, 1, BLOCK) + http2.ping(), PROTOCOL_ERROR),
    "headers continued on another stream": (
        http2.frame(Type.HEADERS, 1, BLOCK) + http2.frame(Type.CONTINUATION, 3, b"", 4),
        PROTOCOL_ERROR,
    ),
    "more padding than headers": (http2.frame(Type.HEADERS, 1, b"\xff" + BLOCK, 4 | 8), PROTOCOL_ERROR),
    "more padding than data": (HEAD + http2.frame(Type.DATA, 1, b"\xff\0", http2.PADDED), PROTOCOL_ERROR),
    "a short ping": (http2.frame(Type.PING, 0, b"1234"), SIZE_ERROR),
    "a ping on a stream": (http2.frame(Type.PING, 1, bytes(8)), PROTOCOL_ERROR),
    "half a setting": (http2.frame(Type.SETTINGS, 0, b"12345"), SIZE_ERROR),
    "settings on a stream": (http2.frame(Type.SETTINGS, 1), PROTOCOL_ERROR),
    "settings in an acknowledgement": (http2.frame(Type.SETTINGS, 0, bytes(6), http2.ACK), SIZE_ERROR),
    "a window over the limit": (
        http2.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),
        (Reason.FLOW_CONTROL_ERROR, Reason.PROTOCOL_ERROR),
    ),
    "frames of one byte": (http2.settings({Setting.MAX_FRAME_SIZE: 1}), PROTOCOL_ERROR),
    "an increment of 0": (http2.window(0, 0), PROTOCOL_ERROR),
    "a window that overflows": (2 * http2.window(0, http2.MAX_WINDOW), (Reason.FLOW_CONTROL_ERROR,)),
    "a reset of an idle stream": (http2.reset(1), PROTOCOL_ERROR),
    "a reset of stream 0": (http2.reset(0), PROTOCOL_ERROR),
    "a short reset": (HEAD + http2.frame(Type.RST_STREAM, 1, b"\0"), SIZE_ERROR),
    "a push": (HEAD + http2.frame(Type.PUSH_PROMISE, 1, b"\0\0\0\2" + BLOCK, 4), PROTOCOL_ERROR),
    "a short priority": (HEAD + http2.frame(Type.PRIORITY, 1, b"\0"), SIZE_ERROR),
}

# {what is wrong: what comes first}
IS_NO_HTTP2 = {
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a preface": http2.PREFACE[:10] + b"junk" * 10,
    "TLS": b"\x16\x03\x01" + bytes(200),
}

# {what is wrong: (frames, what stream 1 is reset with)}
RESETS_THE_STREAM = {
    "headers twice": (HEAD + HEAD, Reason.PROTOCOL_ERROR),
    "headers after the end": (ASKED + HEAD, Reason.PROTOCOL_ERROR),
    "trailers that do not end": (HEAD + http2.data(1, SMALL, end=False) + HEAD, Reason.PROTOCOL_ERROR),
    "a window that overflows": (ASKED + 2 * http2.window(1, http2.MAX_WINDOW), Reason.FLOW_CONTROL_ERROR),
    "more than the window": (
        http2.headers(1, call_block(STREAM_INFER))
        + http2.data(1, 600 * WAITING, end=False)  # after which it is not read
        + 64 * http2.data(1, bytes(http2.FRAME_BYTES), end=False),
        Reason.FLOW_CONTROL_ERROR,
    ),
    "a stream that depends on itself": (
        HEAD + http2.frame(Type.PRIORITY, 1, b"\0\0\0\1\0"),
        Reason.PROTOCOL_ERROR,
    ),
    "no path": (http2.headers(1, call_block(path="")), Reason.PROTOCOL_ERROR),
    "a path without a slash": (http2.headers(1, call_block("path")), Reason.PROTOCOL_ERROR),
    "no method": (http2.headers(1, call_block(method="")), Reason.PROTOCOL_ERROR),
    "CONNECT": (http2.headers(1, call_block(method="CONNECT")), Reason.PROTOCOL_ERROR),
    "a second path": (http2.headers(1, BLOCK + field(b":path", b"/x")), Reason.PROTOCOL_ERROR),
    "a status": (http2.headers(1, field(b":status", b"200") + BLOCK), Reason.PROTOCOL_ERROR),
    "a header of HTTP/1": (http2.headers(1, BLOCK + field(b"connection", b"close")), Reason.PROTOCOL_ERROR),
    "te that is not trailers": (http2.headers(1, call_block(te="gzip")), Reason.PROTOCOL_ERROR),
    "a length that is none": (http2.headers(1, call_block(content_length="-3")), Reason.PROTOCOL_ERROR),
    "another length than announced": (
        http2.headers(1, call_block(content_length="3")) + http2.data(1, SMALL),
        Reason.PROTOCOL_ERROR,
    ),
}

# {what is wrong: (fields of the head, the HTTP status)}
IS_NO_GRPC = {
    "another content": ({"content_type": "text/plain"}, "415"),
    "content of no type": ({"content_type": ""}, "415"),
    "GET": ({"method": "GET"}, "405"),
}


def zipped(body, encoding="gzip"):
    return call_block(grpc_encoding=encoding), http2.message(body, flag=1)


# {what is wrong: (head, body, the gRPC status)}
HAS_A_STATUS = {
    "an unknown method": (call_block("/a/b"), SMALL, UNIMPLEMENTED),
    "an asterisk": (call_block("*"), SMALL, UNIMPLEMENTED),
    "a path that is no ASCII": (call_block("/\xe9"), SMALL, UNIMPLEMENTED),
    "a path of 9 kB": (call_block("/" + 9000 * "a"), SMALL, UNIMPLEMENTED),
    "an encoding that is not offered": (call_block(grpc_encoding="snappy"), SMALL, UNIMPLEMENTED),
    "no time left": (call_block(grpc_timeout="0n"), SMALL, DEADLINE_EXCEEDED),
    **{
        f"the timeout {text!r}": (BLOCK + field(b"grpc-timeout", text.encode()), SMALL, INTERNAL)
        for text in ("", "S", "1", "-1S", "1.5S", "123456789S", "1x", "1 S", "\xe91S")
    },
    "a compressed message without an encoding": (BLOCK, http2.message(infer("echo"), flag=1), INTERNAL),
    "a bomb": (*zipped(gzip.compress(bytes(64 * LIMIT_BYTES))), RESOURCE_EXHAUSTED),
    "what is not compressed": (*zipped(b"nonsense"), INTERNAL),
    "half of what is compressed": (*zipped(gzip.compress(infer("echo"))[:-3]), INTERNAL),
    "nothing as something compressed": (*zipped(b""), INTERNAL),
    "bare deflate": (*zipped(zlib.compress(infer("echo"))[2:-4], "deflate"), INTERNAL),
    "the flag 7": (BLOCK, http2.message(infer("echo"), flag=7), INTERNAL),
    "a message of 4 GiB": (BLOCK, http2.message(b"", length=(1 << 32) - 1), RESOURCE_EXHAUSTED),
    "a message over the limit": (BLOCK, http2.message(b"", length=LIMIT_BYTES + 1), RESOURCE_EXHAUSTED),
    "an end in a message": (BLOCK, SMALL[:-1], INTERNAL),
    "an end in a prefix": (BLOCK, SMALL[:3], INTERNAL),
    "two messages": (BLOCK, 2 * SMALL, INTERNAL),
    "no message": (BLOCK, b"", INTERNAL),
    "what is no request": (BLOCK, http2.message(b"\xff\xff\xff"), INVALID_ARGUMENT),
    "two messages to a small RPC": (call_block(READY), 2 * EMPTY, INTERNAL),
    "what is no request of a small RPC": (call_block(READY), http2.message(b"\xff\xff"), INVALID_ARGUMENT),
    "the flag 7 in a stream": (call_block(STREAM_INFER), SMALL + http2.message(b"", flag=7), INTERNAL),
    "an end in a message of a stream": (call_block(STREAM_INFER), SMALL + SMALL[:-1], INTERNAL),
    "what is no request of a watch": (call_block(WATCH), http2.message(b"\xff\xff"), INVALID_ARGUMENT),
    "no request of a watch": (call_block(WATCH), b"", INVALID_ARGUMENT),
}


def by_name(cases):
    return pytest.mark.parametrize(("frames", "expected"), cases.values(), ids=cases)


@by_name(ENDS_THE_CONNECTION)
def test_connection_error_ends_the_connection(gateway, siege, frames, expected):
    with siege.laid(), Peer(gateway.grpc) as peer:
        peer.wait_for_settings()  # an acknowledgement must not come between
        peer.send(frames)
        assert peer.goodbye().reason in expected


@pytest.mark.parametrize("opening", IS_NO_HTTP2.values(), ids=IS_NO_HTTP2)
def test_what_does_not_begin_as_http2_is_closed(gateway, siege, opening):
    with siege.laid(), Peer(gateway.grpc, opening=opening) as peer:
        assert peer.goodbye() == Goodbye(None, b"")


@by_name(RESETS_THE_STREAM)
def test_stream_error_leaves_the_other_streams_alone(gateway, siege, frames, expected):
    with siege.laid(), Peer(gateway.grpc) as peer:
        peer.wait_for_settings()
        peer.send(frames)
        assert peer.answer(1).reset == expected
        peer.call(3, infer("echo"))
        assert peer.answer(3).status == 0


@by_name(IS_NO_GRPC)
def test_what_is_no_grpc_is_answered_in_http(gateway, siege, frames, expected):
    with siege.laid(), Peer(gateway.grpc) as peer:
        peer.send(http2.headers(1, call_block(**frames)), http2.data(1, SMALL))
        assert peer.answer(1).fields == {":status": expected}


@pytest.mark.parametrize(("block", "body", "status"), HAS_A_STATUS.values(), ids=HAS_A_STATUS)
def test_malformed_call_is_answered_with_its_status(gateway, siege, block, body, status):
    with siege.laid(), Peer(gateway.grpc) as peer:
        peer.send(http2.headers(1, block))
        if not peer.upload(1, body, end=True):
            peer.send(http2.data(1, b""))
        answer = peer.answer(1)
        assert (answer.status, answer.fields[":status"]) == (status, "200")
        assert answer.fields["grpc-message"]
        peer.call(3, infer("echo"))
        assert peer.answer(3).status == 0


@pytest.mark.parametrize("path", [INFER, READY])
def test_trailers_of_the_client_are_passed_over(gateway, siege, path):
    with siege.laid(), Peer(gateway.grpc) as peer:
        body = SMALL if path == INFER else EMPTY
        peer.send(http2.headers(1, call_block(path)), http2.data(1, body, end=False))
        peer.send(http2.headers(1, field(b"x", b"y"), end=True))
        assert peer.answer(1).status == 0


def test_malformed_request_of_a_stream_is_answered_in_its_turn(gateway, siege):
    with siege.laid(), Peer(gateway.grpc) as peer:
        peer.open(1, STREAM_INFER)
        peer.upload(1, http2.message(b"\xff\xff") + SMALL, end=True)
        answer = peer.answer(1)
        assert answer.status == 0
        assert answer.body.find(b"the message is not") < answer.body.find(b"x_out")
