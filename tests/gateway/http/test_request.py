from __future__ import annotations

from http import HTTPStatus

import pytest

from gateway.http.request import BadRequest, Request, parse_head

HOST = b"Host: x"


@pytest.mark.parametrize(
    ("lines", "request_"),
    [
        ([b"GET /healthz HTTP/1.1", HOST], Request("GET", "/healthz", True)),
        ([b"HEAD /metrics?name=a HTTP/1.1", HOST], Request("HEAD", "/metrics", True)),
        ([b"GET http://x:80/readyz?a HTTP/1.1", HOST], Request("GET", "/readyz", True)),
        ([b"GET http://x HTTP/1.1", HOST], Request("GET", "/", True)),
        ([b"OPTIONS * HTTP/1.1", HOST], Request("OPTIONS", "*", True)),
        ([b"GET / HTTP/1.1", b"host:x", b"X-Empty:", b"X-Tab:\ta\tb \xff"], Request("GET", "/", True)),
        ([b"GET / HTTP/1.1", HOST, b"Accept: a/b", b"accept: \xe9"], Request("GET", "/", True, "a/b,\xe9")),
        ([b"GET / HTTP/1.1", HOST, b"Connection: close"], Request("GET", "/", False)),
        ([b"GET / HTTP/1.1", HOST, b"Connection: foo, Close"], Request("GET", "/", False)),
        ([b"GET / HTTP/1.0"], Request("GET", "/", False)),
        ([b"GET / HTTP/1.0", b"Connection: Keep-Alive"], Request("GET", "/", True)),
        ([b"POST / HTTP/1.1", HOST, b"Content-Length: 0"], Request("POST", "/", True)),
        ([b"POST / HTTP/1.1", HOST, b"Content-Length: 3"], Request("POST", "/", False)),
        ([b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: chunked"], Request("POST", "/", False)),
    ],
)
def test_head_is_read(lines, request_):
    assert parse_head(b"\r\n".join(lines), 8) == request_


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b""], HTTPStatus.BAD_REQUEST),
        ([b"GET /", HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET  / HTTP/1.1", HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1 ", HOST], HTTPStatus.BAD_REQUEST),
        ([b"G(T / HTTP/1.1", HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET /\xc3\xa4 HTTP/1.1", HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET x:443 HTTP/1.1", HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET ftp://x/ HTTP/1.1", HOST], HTTPStatus.BAD_REQUEST),
        ([b"\x16\x03\x01\x02\x00\x01"], HTTPStatus.BAD_REQUEST),  # TLS
        ([b"PRI * HTTP/2.0"], HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        ([b"GET / HTTP/1.1"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, HOST], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"no colon"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"Name : x"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"X: a", b" folded"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"X: a\nY: b"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"X: \x00"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"Content-Length: -1"], HTTPStatus.BAD_REQUEST),
        ([b"GET / HTTP/1.1", HOST, b"Content-Length: 1", b"Content-Length: 2"], HTTPStatus.BAD_REQUEST),
        (
            [b"GET / HTTP/1.1", HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"],
            HTTPStatus.BAD_REQUEST,
        ),
        ([b"GET / HTTP/1.1", HOST, *[b"X: a"] * 8], HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_ambiguous_or_excessive_head_is_refused(lines, status):
    with pytest.raises(BadRequest) as caught:
        parse_head(b"\r\n".join(lines), 8)
    assert caught.value.status is status
